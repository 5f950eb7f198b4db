"""The terminal's table: a line a check, what failed last, with what to do about it."""

from libero_eval.doctor.finding import Finding

MARKS = {"pass": "ok  ", "skip": "-   ", "blocked": "-   ", "warn": "WARN", "fail": "FAIL"}
ORDER = ("pass", "skip", "blocked", "warn", "fail")
NAME_WIDTH = 12


def table(findings: dict[str, Finding], seconds: float) -> str:
    """All findings and a verdict."""
    lines = []
    for status in ORDER:
        for name, finding in findings.items():
            if finding.status == status:
                lines += _lines(name, finding)
    failures = [name for name, f in findings.items() if f.status == "fail"]
    warnings = sum(f.status == "warn" for f in findings.values())
    if failures:
        verdict = f"FAILED CHECKS: {', '.join(failures)}"
    else:
        verdict = "healthy" + (f", {warnings} warning(s)" if warnings else "")
    return "\n".join([*lines, f"{verdict} ({seconds:.0f} s)"])


def _lines(name: str, finding: Finding) -> list[str]:
    first = f"{MARKS[finding.status]} {name:<{NAME_WIDTH}} {finding.found}"
    if finding.status in ("pass", "skip", "blocked"):
        return [first]
    margin = " " * (len(MARKS["pass"]) + NAME_WIDTH + 2)
    expected, advice = f"{margin}expected: {finding.expected}", f"{margin}do: {finding.advice}"
    return [first, expected, advice]
