"""How much of its protocol a rollout ran: what a reader must know before any number."""

from collections.abc import Sequence

from libero_eval.env.protocol import PROTOCOLS
from libero_eval.report.policies import EvaluatedPolicy
from libero_eval.results.rows import EpisodeRow


def scope_line(policies: Sequence[EvaluatedPolicy]) -> str:
    """Such as "2 of 10 tasks, 4 of 500 episodes, procedural assets: not comparable with published
    rates", or "" where every policy ran its whole protocol unchanged on official assets.
    """
    scopes = {policy.name: ", ".join(deviations(policy.rows)) for policy in policies}
    if not any(scopes.values()):
        return ""
    words = "; ".join(f"{name}: {text or 'complete'}" for name, text in scopes.items())
    if len(set(scopes.values())) == 1:
        words = next(iter(scopes.values()))
    return f"{words}: not comparable with published rates"


def deviations(rows: Sequence[EpisodeRow]) -> list[str]:
    """In what these episodes are less or other than their protocols, a phrase each."""
    names = {row.protocol.split(",")[0] for row in rows}
    known = [PROTOCOLS[name] for name in names if name in PROTOCOLS]
    if len(known) < len(names):
        return ["tasks that LIBERO does not have"]
    sizes = [90 if protocol.suite == "libero_90" else 10 for protocol in known]
    tasks = len({(row.suite, row.task_id) for row in rows})
    episodes = sum(size * row.trials for size, row in zip(sizes, known, strict=True))
    found = [f"{tasks} of {sum(sizes)} tasks"] * (tasks < sum(sizes))
    found += [f"{len(rows)} of {episodes} episodes"] * (len(rows) < episodes)
    found += sorted({change for row in rows for change in row.protocol.split(", ")[1:]})
    return found + [f"{pack} assets" for pack in sorted({r.pack for r in rows} - {"official"})]
