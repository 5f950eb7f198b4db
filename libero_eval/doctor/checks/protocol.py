"""Would it be rolled out the way it was trained to act?"""

from libero_eval.doctor.context import DiagnosticContext
from libero_eval.doctor.finding import Finding, failed, passed, skipped, warned
from libero_eval.env.protocol import MAX_STEPS, PROTOCOLS

ROOM = 1.2  # times the steps of the longest demonstration: policies are slower
LONGEST_CHUNK = 50  # steps open loop; published policies: 1 to 25


def horizon(context: DiagnosticContext) -> Finding:
    """Suite and number of steps."""
    protocol = context.protocol
    suite, limit = protocol.suite, protocol.max_steps
    if suite not in MAX_STEPS:
        return _own_horizon(context)
    named = [p.max_steps for p in PROTOCOLS.values() if p.suite == suite]
    expected = f"{MAX_STEPS[suite]} steps of {suite}, as OpenVLA's protocol has"
    found = f"{limit} steps, protocol {protocol.key}, hash {protocol.hash}"
    trained = _trained_suite(context)
    if trained not in (None, suite):
        return failed(
            expected, f"statistics of {trained}, protocol of {suite}",
            f"roll out with --protocol {trained}/{protocol.name.split(',')[0]}",
        )  # fmt: skip
    other = [name for name, steps in MAX_STEPS.items() if steps == limit and name != suite]
    if limit not in named and other:
        found += f", the horizon of {other[0]}"
    longest = context.demos.longest
    if limit < longest * (1 if limit in named else ROOM):
        return failed(
            f"room for the longest demonstration of {longest} steps and a fifth more", found,
            f"raise max_steps to {MAX_STEPS[suite]}, or leave it out",
        )  # fmt: skip
    if limit not in named:
        return warned(expected, found, "rates under another horizon compare with nothing published")
    return passed(expected, found)


def _own_horizon(context: DiagnosticContext) -> Finding:
    """Of own tasks: room for the longest demonstration."""
    protocol, longest = context.protocol, context.demos.longest
    expected = f"room for the longest demonstration of {longest} steps and a fifth more"
    found = f"{protocol.max_steps} steps, protocol {protocol.key}"
    if protocol.max_steps < longest * ROOM:
        return failed(expected, found, f"raise --max_steps to {int(longest * ROOM) + 1}")
    return passed(expected, found)


def _trained_suite(context: DiagnosticContext) -> str | None:
    """The suite that the checkpoint's statistics are named after, if they are."""
    if context.folder is None:
        return None
    keys = {key.removesuffix("_no_noops") for key in context.config.norm_stats}
    if context.protocol.suite in keys:
        return context.protocol.suite
    return next((key for key in sorted(keys) if key in MAX_STEPS), None)


def cameras(context: DiagnosticContext) -> Finding:
    """The protocol shows what the policy reads."""
    needs, given = context.policy_needs, context.protocol.cameras
    expected = f"cameras {', '.join(given)}, as {context.protocol.key} has"
    found = f"the policy reads {', '.join(needs) or 'none'}"
    missing = [camera for camera in needs if camera not in given]
    if missing:
        fits = [p.key for p in PROTOCOLS.values() if p.suite == context.protocol.suite]
        fits = [key for key in fits if set(needs) <= set(PROTOCOLS[key].cameras)]
        return failed(
            expected, f"{found}; {', '.join(missing)} is not shown",
            f"roll out with --protocol {fits[0] if fits else 'NAME'}, or correct invact.cameras in "
            "config.json if it was not trained with that camera",
        )  # fmt: skip
    unread = [camera for camera in given if camera not in needs]
    if unread and needs:
        return warned(
            expected, f"{found}, not {', '.join(unread)}",
            "if it was trained with that camera too, add it to invact.cameras in config.json",
        )  # fmt: skip
    return passed(expected, found)


def chunk(context: DiagnosticContext) -> Finding:
    """After the declared number of actions the model says that it is done (EOS)."""
    from libero_eval.doctor.inside import trained_chunk

    if context.unseen:
        return skipped(context.unseen)
    declared = context.config.invact.chunk
    expected = f"the model ends its answer after the declared {declared} actions"
    if declared > LONGEST_CHUNK:
        advice = "correct invact.chunk in config.json"
        return failed(expected, f"{declared} actions open loop", advice)
    trained = trained_chunk(context.model, [f.observation for f in context.answers.frames[:6]])
    if trained is None:
        return skipped("the model never ends an answer: its trained chunk cannot be told")
    if trained != declared:
        return failed(
            expected, f"it ends after {trained}",
            f"set invact.chunk to {trained} in config.json: it was trained on chunks of {trained}",
        )  # fmt: skip
    return passed(expected, f"it ends after {trained}")
