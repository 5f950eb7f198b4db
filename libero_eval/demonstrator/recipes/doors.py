"""Tasks 3 (bowl into the bottom drawer, closed) and 9 (mug into the microwave, closed)."""

from libero_eval.demonstrator.steps.step import Step

RECIPES: dict[tuple[str, int], tuple[Step, ...]] = {}
