"""The doctor: why would this checkpoint, or this machine, score 0 %? Asked before any rollout.

`command.py` is the command; `checks/` holds the questions, one line each in `checks/__init__.py`;
`context.py` is what they look at. To add one: write a function DiagnosticContext -> Finding, and its
line.
"""
