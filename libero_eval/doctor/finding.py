"""What a check finds."""

from dataclasses import dataclass
from typing import Literal

Status = Literal["pass", "warn", "fail", "skip", "blocked"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The answer of one check. expected, found: in words with numbers; advice: what to do."""

    status: Status
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


def blocked(by: str) -> Finding:
    """The answer would mislead, for another check failed."""
    return Finding(status="blocked", expected="", found=f"not asked, for `{by}` failed")
