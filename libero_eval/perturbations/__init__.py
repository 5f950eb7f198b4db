"""Perturbations on top of LIBERO: each axis seeded, recorded in the protocol's name, off by default.

look.py       camera, light, textures
things.py     distractors, the robot's first pose
wording.py    the instruction: blank, of another task, reworded, with a trailing dot
perturbed.py  the simulator that applies them
"""

from libero_eval.perturbations.config import PerturbationsConfig

__all__ = ["PerturbationsConfig"]
