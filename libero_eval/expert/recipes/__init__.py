"""How each task is solved: (suite, task id) -> its steps in order."""

from invact_vla.core.errors import UserError
from libero_eval.expert.recipes import baskets, doors, shelves, stove
from libero_eval.expert.steps.step import Step

RECIPES: dict[tuple[str, int], tuple[Step, ...]] = {
    **baskets.RECIPES,
    **stove.RECIPES,
    **doors.RECIPES,
    **shelves.RECIPES,
}


def recipe(suite: str, task_id: int) -> tuple[Step, ...]:
    """The steps of a task; UserError for a task without a recipe."""
    if (suite, task_id) not in RECIPES:
        known = ", ".join(f"{s} {t}" for s, t in sorted(RECIPES))
        raise UserError(f"no expert for {suite} task {task_id}; there is one for: {known}")
    return RECIPES[suite, task_id]
