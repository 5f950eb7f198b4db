"""LIBERO evaluation: asset packs, simulator, protocols, expert, rollouts.

Importing this package loads neither robosuite nor LIBERO nor a GL library.
"""
