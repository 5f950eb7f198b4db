"""From rows to statements: `invact libero report`, `compare` and `plan`.

policies.py    a run folder read back: rows, manifest, whether it is finished or stopped early
scope.py       how much of its protocol a run is
lines.py       numbers of a task and of a run: k/n, interval, progress, throughput
run.py         `report`: table, report.html, Parquet and CSV;  run_page.py: the page
comparison.py  policies against the first;  compare.py: `compare`;  compare_page.py: the page
plan.py        `plan`: how many episodes a difference takes
templates/     the pages' HTML
"""
