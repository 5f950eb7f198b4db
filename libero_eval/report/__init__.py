"""From rows to statements: `invact libero report`, `compare` and `plan`.

policies.py       a run folder read back: rows, manifest, whether it is finished or stopped early
lines.py      numbers of a task and of a run: k/n, interval, progress, throughput
text.py       tables for the terminal
run.py        `report`: table, report.html, Parquet and CSV;  run_page.py: the page
compare.py    `compare`: policies against the first;              compare_page.py: the page
plan.py       `plan`: how many episodes a difference takes
"""
