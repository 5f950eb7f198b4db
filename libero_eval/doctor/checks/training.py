"""Was it trained at all?"""

from libero_eval.doctor.context import DiagnosticContext
from libero_eval.doctor.finding import Finding, failed, passed, skipped
from libero_eval.doctor.training import LEAST_STEPS


def training(context: DiagnosticContext) -> Finding:
    """Enough steps for its answers to mean anything."""
    found = context.training
    if found is None or found.steps is None:
        return skipped("no record of its training lies beside it")
    expected = f"at least {LEAST_STEPS} steps"
    if found.barely:
        return failed(
            expected, f"barely trained: {found.barely}",
            "train longer (--loop.steps); until then nothing can be said about its senses or skill",
        )  # fmt: skip
    return passed(expected, f"{found.steps} steps, {found.run.name}")
