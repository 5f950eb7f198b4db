"""Success rates that say how sure they are: intervals, paired tests, how many episodes one needs.

    bootstrap.py    intervals of means and ratios over clusters (takes, episodes)
    rates.py        k/n with an interval, or the reason why there is none; intervals that hold at every
                    moment of a run, for stopping early
    differences.py  two variants: McNemar and bootstrap on pairs, Newcombe and Fisher without; Holm
    power.py        chance of seeing a difference, and the episodes it takes

Of counts and numbers alone; what a row of a rollout is, `libero_eval.results.statistics` knows.
"""

from invact_vla.stats.differences import (
    Comparison,
    MeanDifference,
    compare_paired,
    compare_sequential,
    compare_unpaired,
    holm,
    mcnemar,
    paired_bootstrap,
    tango,
)
from invact_vla.stats.power import (
    detectable_gap,
    detectable_paired,
    power,
    power_fisher,
    power_mcnemar,
    required_n,
    required_pairs,
    smallest_n,
)
from invact_vla.stats.rates import (
    Interval,
    Rate,
    difference_evidence,
    difference_sequence,
    rate_sequence,
    wilson,
)

__all__ = [
    "Comparison", "Interval", "MeanDifference", "Rate", "compare_paired", "compare_sequential",
    "compare_unpaired", "detectable_gap", "detectable_paired", "difference_evidence",
    "difference_sequence", "holm", "mcnemar", "paired_bootstrap", "power", "power_fisher",
    "power_mcnemar", "rate_sequence", "required_n", "required_pairs", "smallest_n", "tango",
    "wilson",
]  # fmt: skip
