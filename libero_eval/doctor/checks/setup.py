"""Does this machine render, with the versions that scores were measured with, what they were measured
on, and would the policy be rolled out the way it was trained to act?"""

import re
import time
from dataclasses import dataclass
from typing import Literal

from libero_eval.doctor import fingerprints
from libero_eval.doctor.context import DiagnosticContext
from libero_eval.doctor.finding import Finding, failed, passed, skipped, verdicts, warned
from libero_eval.env.assets.pack import ProceduralPack
from libero_eval.env.manifest import ABSENT
from libero_eval.env.protocol import MAX_STEPS, PROTOCOLS
from libero_eval.env.tasks import is_own, task_names

ROOM = 1.2  # times the steps of the longest demonstration: policies are slower
OTHER_LOOK = (
    "other MuJoCo (pip install 'mujoco==3.3.2'), GL driver, or an incomplete asset pack; if this "
    "look is meant, write it down with --write_fingerprints true"
)


@dataclass(frozen=True)
class Need:
    """Which versions of a package are good, and why others are not."""

    package: str
    good: tuple[str, ...] | str  # these and no others, or this one and later ones
    reason: str
    otherwise: Literal["warn", "fail"] = "fail"

    def suits(self, version: str) -> bool:
        """Whether a version is good."""
        if isinstance(self.good, tuple):
            return version in self.good
        return version != ABSENT and numbers(version) >= numbers(self.good)


NEEDS = (
    Need(
        "mujoco", ("3.3.2",),
        "3.3.3 and later shade floors darker (LIBERO issue 88: 88 % became 69 %), 3.4 and later touch "
        "differently (lerobot issue 4390: 98 % became 12 %), earlier ones are untested",
    ),
    Need(
        "robosuite", ("1.4.0", "1.4.1"),
        "1.5 has other controllers, observations and gripper details",
    ),
    Need("hf-libero", "0.1.4", "earlier ones do not run on Python 3.10"),
    Need("bddl", ("1.0.1",), "others may read task files differently", otherwise="warn"),
    Need("transformers", "5.0", "4.50 and later lose the image in generation (openvla issue 346)"),
    Need("torch", "2.4", "earlier ones lack the attention used here"),
    Need("timm", "1.0.11", "earlier ones cannot build towers without weights"),
    Need("numpy", "1.26", "earlier ones are untested"),
)  # fmt: skip


def numbers(version: str) -> tuple[int, ...]:
    """3.10.1rc2 -> (3, 10, 1)."""
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def gl_backend(context: DiagnosticContext) -> Finding:
    """A backend that renders; UserError with the missing packages becomes the finding."""
    return passed("EGL or OSMesa renders", context.backend)


def versions(context: DiagnosticContext) -> Finding:
    """Every package of the table in a good version."""
    found = {n.package: context.manifest["packages"].get(n.package, ABSENT) for n in NEEDS}
    wrong = [n for n in NEEDS if not n.suits(found[n.package])]
    if not wrong:
        shown = ", ".join(f"{n.package} {found[n.package]}" for n in NEEDS[:2])
        return passed(f"{len(NEEDS)} packages as tested", shown)
    wrong.sort(key=lambda n: n.otherwise)  # fail before warn
    wanted, pins = {}, []
    for n in wrong:
        several = isinstance(n.good, tuple)
        wanted[n.package] = " or ".join(n.good) if several else f"{n.good} or later"
        pins.append(f"'{n.package}=={n.good[0]}'" if several else f"'{n.package}>={n.good}'")
    finding = failed if any(n.otherwise == "fail" for n in wrong) else warned
    return finding(
        ", ".join(f"{package} {version}" for package, version in wanted.items()),
        ", ".join(f"{package} {found[package]}" for package in wanted),
        f"pip install {' '.join(pins)}; " + "; ".join(f"{n.package}: {n.reason}" for n in wrong),
    )


def render(context: DiagnosticContext) -> Finding:
    """The first frame of each task against its reference, as many as the time allows."""
    suite, pack = context.protocol.suite, context.pack
    references = fingerprints.read_references()
    look = pack.seed if isinstance(pack, ProceduralPack) else 0
    of_pack = references.get(pack.name, {}).values()
    if look or suite not in {task.split("/")[0] for tasks in of_pack for task in tasks}:
        why = f"{context.protocol.suite_name} is no suite of LIBERO: it has no references"
        return skipped(
            why if is_own(suite) else f"no references for {suite} in this {pack.name} pack"
        )
    backend, others, gaps = context.backend, set(), []
    started = time.perf_counter()
    for task_id, name in enumerate(task_names(suite)):
        known = fingerprints.reference(references, pack.name, backend, f"{suite}/{task_id}")
        if known is None or time.perf_counter() - started > context.seconds:
            continue
        found = fingerprints.first_frame(context.sim(task_id))
        others.add(known[1])
        turned = fingerprints.turned_like(found, known[0])
        gap = fingerprints.difference(found, known[0])
        gaps.append((gap, f"task {task_id} ({name}) is", turned))
    if not gaps:
        return skipped(f"no time for the tasks of {suite}: raise --seconds")
    gap, where, turned = max(gaps, key=lambda entry: (not entry[0].same, entry[0].mean))
    ok, warn, fail = verdicts(
        f"first frames of {len(gaps)} tasks within {fingerprints.MEAN_LIMIT:.0f} gray levels"
    )
    if gap.same:
        return ok(f"{gap.mean:.1f} at most, with {backend}")
    if turned is not None:
        return fail(f"{where} {turned}", f"this renderer gives turned frames: {OTHER_LOOK}")
    if others == {backend}:
        return fail(f"{where} {gap}", OTHER_LOOK)
    of = ", ".join(sorted(others))
    return warn(f"{where} {gap}", f"references are of {of}, this is {backend}: {OTHER_LOOK}")


def write_fingerprints(context: DiagnosticContext) -> int:
    """Write down how all tasks of the suite look here; their number."""
    suite, count = context.protocol.suite, len(task_names(context.protocol.suite))
    found = {f"{suite}/{i}": fingerprints.first_frame(context.sim(i)) for i in range(count)}
    fingerprints.write_references(found, context.pack.name, context.backend)
    return count


def horizon(context: DiagnosticContext) -> Finding:
    """Suite and number of steps; of own tasks, room for the longest demonstration."""
    protocol, longest = context.protocol, context.demos.longest
    suite, limit = protocol.suite, protocol.max_steps
    room = f"room for the longest demonstration of {longest} steps and a fifth more"
    if suite not in MAX_STEPS:
        found = f"{limit} steps, protocol {protocol.key}"
        if limit < longest * ROOM:
            return failed(room, found, f"raise --max_steps to {int(longest * ROOM) + 1}")
        return passed(room, found)
    named = [p.max_steps for p in PROTOCOLS.values() if p.suite == suite]
    ok, warn, fail = verdicts(f"{MAX_STEPS[suite]} steps of {suite}, as OpenVLA's protocol has")
    trained = suite  # the suite that the checkpoint's statistics are named after, if they are
    if context.folder is not None:
        keys = {key.removesuffix("_no_noops") for key in context.config.norm_stats}
        trained = (
            suite if suite in keys else next((k for k in sorted(keys) if k in MAX_STEPS), suite)
        )
    if trained != suite:
        remedy = f"roll out with --protocol {trained}/{protocol.name.split(',')[0]}"
        return fail(f"statistics of {trained}, protocol of {suite}", remedy)
    found = f"{limit} steps, protocol {protocol.key}, hash {protocol.hash}"
    other = [name for name, steps in MAX_STEPS.items() if steps == limit and name != suite]
    if limit not in named and other:
        found += f", the horizon of {other[0]}"
    if limit < longest * (1 if limit in named else ROOM):
        return failed(room, found, f"raise max_steps to {MAX_STEPS[suite]}, or leave it out")
    if limit not in named:
        return warn(found, "rates under another horizon compare with nothing published")
    return ok(found)


def cameras(context: DiagnosticContext) -> Finding:
    """The protocol shows what the policy reads."""
    needs, given = context.policy_needs, context.protocol.cameras
    ok, warn, fail = verdicts(f"cameras {', '.join(given)}, as {context.protocol.key} has")
    found = f"the policy reads {', '.join(needs) or 'none'}"
    missing = [camera for camera in needs if camera not in given]
    if missing:
        of_suite = [p for p in PROTOCOLS.values() if p.suite == context.protocol.suite]
        fits = next((p.key for p in of_suite if set(needs) <= set(p.cameras)), "NAME")
        return fail(
            f"{found}; {', '.join(missing)} is not shown",
            f"roll out with --protocol {fits}, or correct invact.cameras in config.json if it was "
            "not trained with that camera",
        )
    unread = [camera for camera in given if camera not in needs]
    if unread and needs:
        return warn(
            f"{found}, not {', '.join(unread)}",
            "if it was trained with that camera too, add it to invact.cameras in config.json",
        )
    return ok(found)
