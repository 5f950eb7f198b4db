"""Perturbations on top of LIBERO: each axis seeded, recorded in the protocol's name, off by default.

look.py       camera, light, textures
things.py     distractors, the robot's first pose
wording.py    the instruction: blank, of another task, reworded, with a trailing dot
perturbed.py  the simulator that applies them
"""

from libero_eval.axes.config import AxesConfig

__all__ = ["AxesConfig"]
