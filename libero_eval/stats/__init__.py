"""Success rates that say how sure they are: intervals, paired tests, how many episodes one needs.

    rates.py        k/n with an interval, or the reason why there is none
    differences.py  two arms: McNemar and bootstrap on pairs, Newcombe and Fisher without; Holm
    power.py        chance of seeing a difference, and the episodes it takes
    sequences.py    intervals that hold at every moment of a run, for stopping early

Episodes of two arms share (task, init state), so the paired forms are the default. No rate exists
while an episode ended as an error: a crash says nothing about the policy.
"""

from libero_eval.stats.differences import (
    Comparison,
    MeanDifference,
    compare,
    compare_means,
    compare_paired,
    compare_sequential,
    compare_unpaired,
    holm,
    mcnemar,
    outcomes,
    paired_bootstrap,
    settings_differ,
    tango,
)
from libero_eval.stats.power import (
    detectable_gap,
    detectable_paired,
    power,
    power_fisher,
    power_mcnemar,
    required_n,
    required_pairs,
    smallest_n,
)
from libero_eval.stats.rates import Interval, Rate, RateRefused, rate, wilson
from libero_eval.stats.sequences import (
    difference_evidence,
    difference_sequence,
    rate_sequence,
)

__all__ = [
    "Comparison",
    "Interval",
    "MeanDifference",
    "Rate",
    "RateRefused",
    "compare",
    "compare_means",
    "compare_paired",
    "compare_sequential",
    "compare_unpaired",
    "detectable_gap",
    "detectable_paired",
    "difference_evidence",
    "difference_sequence",
    "holm",
    "mcnemar",
    "outcomes",
    "paired_bootstrap",
    "power",
    "power_fisher",
    "power_mcnemar",
    "rate",
    "rate_sequence",
    "required_n",
    "required_pairs",
    "settings_differ",
    "smallest_n",
    "tango",
    "wilson",
]
