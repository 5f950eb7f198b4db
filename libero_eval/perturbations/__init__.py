"""Perturbations on top of LIBERO: each seeded, recorded in the protocol's name, off by default."""

from libero_eval.perturbations.config import PerturbationsConfig

__all__ = ["PerturbationsConfig"]
