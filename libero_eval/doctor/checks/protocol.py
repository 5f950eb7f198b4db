"""Would it be rolled out the way it was trained to act?"""

from libero_eval.doctor.finding import Finding, failed, passed, skipped, warned
from libero_eval.doctor.patient import Patient
from libero_eval.protocol import MAX_STEPS, PROTOCOLS

ROOM = 1.2  # times the steps of the longest demonstration: policies are slower
LONGEST_CHUNK = 50  # steps open loop; published policies: 1 to 25


def horizon(patient: Patient) -> Finding:
    """Suite and number of steps."""
    protocol = patient.protocol
    suite, limit = protocol.suite, protocol.max_steps
    if suite not in MAX_STEPS:
        return _own_horizon(patient)
    named = [p.max_steps for p in PROTOCOLS.values() if p.suite == suite]
    expected = f"{MAX_STEPS[suite]} steps of {suite}, as OpenVLA's protocol has"
    found = f"{limit} steps, protocol {protocol.key}, hash {protocol.hash}"
    trained = _trained_suite(patient)
    if trained not in (None, suite):
        return failed(
            expected, f"statistics of {trained}, protocol of {suite}",
            f"roll out with --protocol {trained}/{protocol.name.split(',')[0]}",
        )  # fmt: skip
    other = [name for name, steps in MAX_STEPS.items() if steps == limit and name != suite]
    if limit not in named and other:
        found += f", the horizon of {other[0]}"
    longest = patient.demos.longest
    if limit < longest * (1 if limit in named else ROOM):
        return failed(
            f"room for the longest demonstration of {longest} steps and a fifth more", found,
            f"raise max_steps to {MAX_STEPS[suite]}, or leave it out",
        )  # fmt: skip
    if limit not in named:
        return warned(expected, found, "rates under another horizon compare with nothing published")
    return passed(expected, found)


def _own_horizon(patient: Patient) -> Finding:
    """Of own tasks: room for the longest demonstration."""
    protocol, longest = patient.protocol, patient.demos.longest
    expected = f"room for the longest demonstration of {longest} steps and a fifth more"
    found = f"{protocol.max_steps} steps, protocol {protocol.key}"
    if protocol.max_steps < longest * ROOM:
        return failed(expected, found, f"raise --max_steps to {int(longest * ROOM) + 1}")
    return passed(expected, found)


def _trained_suite(patient: Patient) -> str | None:
    """The suite that the checkpoint's statistics are named after, if they are."""
    if patient.folder is None:
        return None
    keys = {key.removesuffix("_no_noops") for key in patient.config.norm_stats}
    if patient.protocol.suite in keys:
        return patient.protocol.suite
    return next((key for key in sorted(keys) if key in MAX_STEPS), None)


def cameras(patient: Patient) -> Finding:
    """The protocol shows what the policy reads."""
    needs, given = patient.policy_needs, patient.protocol.cameras
    expected = f"cameras {', '.join(given)}, as {patient.protocol.key} has"
    found = f"the policy reads {', '.join(needs) or 'none'}"
    missing = [camera for camera in needs if camera not in given]
    if missing:
        fits = [p.key for p in PROTOCOLS.values() if p.suite == patient.protocol.suite]
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


def chunk(patient: Patient) -> Finding:
    """After the declared number of actions the model says that it is done (EOS)."""
    from libero_eval.doctor.inside import trained_chunk

    if patient.unseen:
        return skipped(patient.unseen)
    declared = patient.config.invact.chunk
    expected = f"the model ends its answer after the declared {declared} actions"
    if declared > LONGEST_CHUNK:
        advice = "correct invact.chunk in config.json"
        return failed(expected, f"{declared} actions open loop", advice)
    trained = trained_chunk(patient.model, [f.observation for f in patient.answers.frames[:6]])
    if trained is None:
        return skipped("the model never ends an answer: its trained chunk cannot be told")
    if trained != declared:
        return failed(
            expected, f"it ends after {trained}",
            f"set invact.chunk to {trained} in config.json: it was trained on chunks of {trained}",
        )  # fmt: skip
    return passed(expected, f"it ends after {trained}")
