"""The terminal's table: one line per check, what failed last, with what to do about it."""

from invact_vla.core.text_table import text_table
from libero_eval.doctor.finding import Finding

MARKS = {"pass": "ok", "skip": "-", "blocked": "-", "warn": "WARN", "fail": "FAIL"}


def table(findings: dict[str, Finding], seconds: float) -> str:
    """All findings and a verdict."""
    rows = []
    for status, mark in MARKS.items():
        for name, finding in findings.items():
            if finding.status == status:
                rows.append((mark, name, finding.found))
                if status in ("warn", "fail"):
                    rows.append(("", "", f"expected: {finding.expected}"))
                    rows.append(("", "", f"do: {finding.advice}"))
    failures = [name for name, f in findings.items() if f.status == "fail"]
    warnings = sum(f.status == "warn" for f in findings.values())
    if failures:
        verdict = f"FAILED CHECKS: {', '.join(failures)}"
    else:
        verdict = "healthy" + (f", {warnings} warning(s)" if warnings else "")
    return f"{text_table((), rows, left=(0, 1, 2))}\n{verdict} ({seconds:.0f} s)"
