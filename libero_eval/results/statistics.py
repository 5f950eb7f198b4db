"""Statistics of episode rows: the success rate of a policy, and how two policies differ.

No rate exists while an episode ended as an error: a crash says nothing about the policy. Episodes of two
policies share (task, init state), so the paired forms are the default.
"""

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from invact_vla.core.errors import UserError
from invact_vla.stats.bootstrap import percentile_interval, resample
from invact_vla.stats.differences import (
    MEAN_RESAMPLES,
    Comparison,
    MeanDifference,
    compare_paired,
    compare_unpaired,
)
from invact_vla.stats.rates import Interval, Rate, wilson
from libero_eval.results.rows import EpisodeRow

LEVEL = 0.95  # confidence of the intervals
# fields of a row that must be equal for two policies to be comparable
SETTINGS = ("protocol", "protocol_hash", "pack", "pack_hash", "manifest_hash", "seed")


class RateRefused(UserError):
    """No success rate can be given for these rows; the message says why."""


def rate(rows: Iterable[EpisodeRow], interval: Interval = wilson) -> Rate:
    """The success rate of rows; raises RateRefused if there are none or any of them is an error.

    interval: `wilson` for a run whose length was fixed, `sequences.rate_sequence` for one that
    stopped early.
    """
    rows = list(rows)
    errors = [row for row in rows if row.outcome == "error"]
    if errors:
        raise RateRefused(why_no_rate(errors, len(rows)))
    if not rows:
        raise RateRefused("no episodes were run")
    k = sum(row.outcome == "success" for row in rows)
    low, high = interval(k, len(rows), LEVEL)
    return Rate(k=k, n=len(rows), low=low, high=high)


def why_no_rate(errors: list[EpisodeRow], n: int) -> str:
    """The sentence in place of a rate: how many errors, the first of them, what to do."""
    first = errors[0]
    lines = first.reason.strip().splitlines()
    return (
        f"{len(errors)} of {n} episodes ended as errors, which are neither success nor "
        f"failure (first: {first.suite} task {first.task_id} init {first.init_index}: "
        f"{lines[0] if lines else 'no reason'}); "
        "fix the cause and run again, only those episodes are repeated"
    )


def compare(
    first: Sequence[EpisodeRow], second: Sequence[EpisodeRow], seed: int = 0, across: bool = False
) -> Comparison:
    """Compare two variants: paired if both ran exactly the same (suite, task, init), else unpaired.

    Refused (RateRefused) with errors among the rows, and (UserError) when the rows were made under
    different protocols, asset packs or environments, unless `across`; what differs is then in the
    result.
    """
    rate_first, rate_second = rate(first), rate(second)
    differs = tuple(settings_differ(first, second))
    if differs and not across:
        raise UserError(
            f"variants {first[0].policy_name!r} and {second[0].policy_name!r} cannot be compared: "
            + "; ".join(differs)
            + "; run both under the same settings, or let `invact libero compare --across true` "
            "compare them all the same"
        )
    ours, theirs = outcomes(first), outcomes(second)
    if ours.keys() == theirs.keys():
        episodes = sorted(ours)
        rng = np.random.default_rng([seed, len(episodes)])
        pairs = [ours[e] for e in episodes], [theirs[e] for e in episodes]
        result = compare_paired(*pairs, rng, LEVEL)
    else:
        counts = rate_first.k, rate_first.n, rate_second.k, rate_second.n
        result = compare_unpaired(*counts, LEVEL)
    return Comparison(**{**vars(result), "differs": differs})


def compare_means(
    first: Sequence[EpisodeRow],
    second: Sequence[EpisodeRow],
    value: Callable[[EpisodeRow], float],
    seed: int = 0,
) -> MeanDifference:
    """Paired difference of a progress measure, e.g. the share of goals met; bootstrap over pairs.

    Both variants must have run the same episodes without errors (UserError otherwise).
    """
    ours = {row.episode: value(row) for row in first}
    theirs = {row.episode: value(row) for row in second}
    if ours.keys() != theirs.keys() or not ours:
        raise UserError(
            "a paired comparison needs the same episodes, at least one, in both variants"
        )
    for rows in (first, second):
        rate(rows)  # refuses errors
    change = np.array([theirs[episode] - ours[episode] for episode in sorted(ours)])
    n = len(change)
    means = resample(change, np.ones(n), range(n), draws=MEAN_RESAMPLES, seed=[seed, n])
    return MeanDifference(float(change.mean()), *percentile_interval(means, LEVEL))


def settings_differ(first: Iterable[EpisodeRow], second: Iterable[EpisodeRow]) -> list[str]:
    """What makes two sets of rows incomparable, one phrase per setting; empty if nothing does."""
    first, second = list(first), list(second)
    phrases = []
    for name in SETTINGS:
        ours, theirs = ({str(getattr(row, name)) for row in rows} for rows in (first, second))
        if ours != theirs or len(ours) > 1:
            phrases.append(f"{name} {sorted(ours)} against {sorted(theirs)}")
    return phrases


def outcomes(rows: Sequence[EpisodeRow]) -> dict[tuple[str, int, int], bool]:
    """Episode -> success; UserError for an episode that is there twice."""
    found = {row.episode: row.outcome == "success" for row in rows}
    if len(found) != len(rows):
        raise UserError(
            "a variant holds an episode twice: pass the rows of one variant and one seed"
        )
    return found
