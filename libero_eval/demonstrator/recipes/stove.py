"""Tasks 2 (stove on, moka pot onto it) and 8 (both moka pots onto the stove) of LIBERO-10."""

from libero_eval.demonstrator.steps.step import Step

RECIPES: dict[tuple[str, int], tuple[Step, ...]] = {}
