"""What a check is, what it finds, and the table of all findings."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from invact_vla.core.text_table import text_table

MARKS = {"pass": "ok", "skip": "-", "blocked": "-", "warn": "WARN", "fail": "FAIL"}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The answer of one check. expected, found: in words with numbers; advice: what to do."""

    status: Literal["pass", "warn", "fail", "skip", "blocked"]
    expected: str
    found: str
    advice: str = ""

    def __post_init__(self) -> None:
        if self.status in ("warn", "fail") and not self.advice:
            raise ValueError(f"a finding that is a {self.status} must say what to do: {self.found}")


def passed(expected: str, found: str) -> Finding:
    """All is well."""
    return Finding(status="pass", expected=expected, found=found)


def warned(expected: str, found: str, advice: str) -> Finding:
    """It may work, but the result would not mean what it says."""
    return Finding(status="warn", expected=expected, found=found, advice=advice)


def failed(expected: str, found: str, advice: str) -> Finding:
    """It would score 0 %, or next to it."""
    return Finding(status="fail", expected=expected, found=found, advice=advice)


def skipped(why: str) -> Finding:
    """The question does not arise, or cannot be answered here."""
    return Finding(status="skip", expected="", found=why)


def verdicts(expected: str) -> tuple[Any, Any, Any]:
    """`passed`, `warned` and `failed` of what is expected."""
    return partial(passed, expected), partial(warned, expected), partial(failed, expected)


@dataclass(frozen=True, kw_only=True)
class Check:
    """A question, put to a DiagnosticContext."""

    name: str
    run: Callable[[Any], Finding]
    # what must be there: "setup" always is, "checkpoint" a folder, "policy" anything that answers
    # observations alone
    of: Literal["setup", "checkpoint", "policy"] = "setup"
    needs: tuple[str, ...] = ()  # checks that must not have failed, or the answer would mislead


def table(findings: dict[str, Finding], seconds: float) -> str:
    """A line a check, what failed last, with what to do about it; and a verdict."""
    rows = []
    for status, mark in MARKS.items():
        for name, finding in findings.items():
            if finding.status == status:
                rows.append((mark, name, finding.found))
                if finding.advice:
                    rows.append(("", "", f"expected: {finding.expected}"))
                    rows.append(("", "", f"do: {finding.advice}"))
    failures = [name for name, f in findings.items() if f.status == "fail"]
    warnings = sum(f.status == "warn" for f in findings.values())
    verdict = "healthy" + (f", {warnings} warning(s)" if warnings else "")
    if failures:
        verdict = f"FAILED CHECKS: {', '.join(failures)}"
    return f"{text_table((), rows, left=(0, 1, 2))}\n{verdict} ({seconds:.0f} s)"
