"""Do the tasks look as they did where scores were measured?"""

import time

from libero_eval.doctor import fingerprints
from libero_eval.doctor.context import DiagnosticContext
from libero_eval.doctor.finding import Finding, failed, passed, skipped, warned
from libero_eval.doctor.fingerprints import Difference, first_frame, reference, turned_like
from libero_eval.env.assets.pack import ProceduralPack
from libero_eval.env.tasks import is_own, task_names

ADVICE = (
    "other MuJoCo (pip install 'mujoco==3.3.2'), GL driver, or an incomplete asset pack; if this "
    "look is meant, write it down with --write_fingerprints true"
)


def render(context: DiagnosticContext) -> Finding:
    """The first frame of each task against its reference, as many as the time allows."""
    suite, pack = context.protocol.suite, context.subject.assets
    references = fingerprints.read_references()
    if is_own(suite):
        return skipped(f"{context.protocol.suite_name} is no suite of LIBERO: it has no references")
    look = pack.seed if isinstance(pack, ProceduralPack) else 0
    if look or suite not in _suites(references, pack.name):
        return skipped(f"no references for {suite} in this {pack.name} pack")
    started, compared = time.perf_counter(), 0
    worst: tuple[Difference, str, str | None] | None = None
    others: set[str] = set()
    for task_id, name in enumerate(task_names(suite)):
        known = reference(references, pack.name, context.backend, f"{suite}/{task_id}")
        if known is None or time.perf_counter() - started > context.subject.seconds:
            continue
        found = first_frame(context.sim(task_id))
        compared += 1
        others.add(known[1])
        gap = fingerprints.difference(found, known[0])
        if worst is None or gap.severity > worst[0].severity:
            worst = gap, f"task {task_id} ({name})", turned_like(found, known[0])
    if worst is None:
        return skipped(f"no time for the tasks of {suite}: raise --seconds")
    return _judge(worst, compared, others, context.backend)


def _judge(
    worst: tuple[Difference, str, str | None], compared: int, others: set[str], backend: str
) -> Finding:
    gap, where, turned = worst
    expected = f"first frames of {compared} tasks within {fingerprints.MEAN_LIMIT:.0f} gray levels"
    if turned is not None and not gap.same:
        return failed(
            expected, f"{where} is {turned}", f"this renderer gives turned frames: {ADVICE}"
        )
    if not gap.same:
        found = f"{where} is {gap}"
        if others == {backend}:
            return failed(expected, found, ADVICE)
        advice = f"references are of {', '.join(sorted(others))}, this is {backend}: {ADVICE}"
        return warned(expected, found, advice)
    return passed(expected, f"{gap.mean:.1f} at most, with {backend}")


def _suites(references: dict, pack: str) -> set[str]:
    return {task.split("/")[0] for tasks in references.get(pack, {}).values() for task in tasks}


def write(context: DiagnosticContext) -> int:
    """Write down how all tasks of the suite look here; their number."""
    suite = context.protocol.suite
    found = {}
    for task_id in range(len(task_names(suite))):
        found[f"{suite}/{task_id}"] = first_frame(context.sim(task_id))
    fingerprints.write_references(found, context.subject.assets.name, context.backend)
    return len(found)
