"""Success rates that say how sure they are: intervals, paired tests, how many episodes one needs.

    bootstrap.py    intervals of means and ratios over clusters (takes, episodes)
    rates.py        k/n with an interval, or the reason why there is none; intervals that hold at every
                    moment of a run, for stopping early
    differences.py  two variants: McNemar and bootstrap on pairs, Newcombe and Fisher without; Holm
    power.py        chance of seeing a difference, and the episodes it takes

Of counts and numbers alone; what a row of a rollout is, `libero_eval.results.statistics` knows.
"""
