"""Tasks 5 (book into the caddy) and 6 (mug onto the plate, pudding beside it) of LIBERO-10."""

from libero_eval.demonstrator.steps.step import Step

RECIPES: dict[tuple[str, int], tuple[Step, ...]] = {}
