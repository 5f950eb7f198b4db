"""Synthetic human video: a capsule hand acting in MuJoCo scenes, written as Ego-Exo4D and SSV2
trees.
"""
