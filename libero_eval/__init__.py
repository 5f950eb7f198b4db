"""LIBERO evaluation: asset packs, simulator, protocols, demonstrator, rollouts.

Importing this package loads neither robosuite nor LIBERO nor a GL library.
"""
