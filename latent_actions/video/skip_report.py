"""What an index left out and why: counts by reason, a few examples of each, and a limit."""

import logging
from collections import Counter
from typing import Any

from invact_vla.core.errors import UserError

logger = logging.getLogger(__name__)
EXAMPLES = 5  # kept of each reason


class SkipReport:
    """Counts what a reader left out.

    Reasons are of two kinds: a choice (an option or the protocol asks for it, such as clips under a
    second) and damage (missing or corrupt files, annotations that cannot be read). Only damage
    counts against the limit of `check`, out of `seen` items looked at.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.examples: dict[str, list[str]] = {}
        self.damage: set[str] = set()
        self.seen = 0

    def add(self, reason: str, example: str, count: int = 1, damage: bool = False) -> None:
        """Count `count` items left out for `reason`."""
        self.counts[reason] += count
        named = self.examples.setdefault(reason, [])
        if len(named) < EXAMPLES:
            named.append(example)
        if damage:
            self.damage.add(reason)

    @property
    def damaged(self) -> int:
        """Items left out because of damage."""
        return sum(self.counts[reason] for reason in self.damage)

    def update(self, other: "SkipReport") -> None:
        """Add what another report counts."""
        self.seen += other.seen
        self.damage |= other.damage
        self.counts.update(other.counts)
        for reason, named in other.examples.items():
            self.examples[reason] = (self.examples.get(reason, []) + named)[:EXAMPLES]

    def summary(self) -> str:
        """What was dropped and why, in one line; empty if nothing was."""
        reasons = ", ".join(
            f"{count} {reason} (such as {self.examples[reason][0]})"
            for reason, count in self.counts.most_common()
        )
        return f"dropped {reasons}" if reasons else ""

    def lines(self) -> list[str]:
        """The same, a line per reason."""
        return [
            f"  dropped {count:>7} {reason}{', damage' if reason in self.damage else ''} "
            f"(such as {self.examples[reason][0]})"
            for reason, count in sorted(self.counts.items())
        ]

    def log(self, what: str, kept: int) -> None:
        """One line: how many were kept, how many dropped and why."""
        logger.info("%s: kept %d%s", what, kept, f"; {self.summary()}" if self.counts else "")

    def check(self, what: str, limit: float) -> None:
        """Raise a UserError if more than the fraction `limit` of what was seen is damaged."""
        if self.damaged > limit * self.seen:
            examples = [text for reason in sorted(self.damage) for text in self.examples[reason]]
            raise UserError(
                f"{self.damaged} of {self.seen} {what} are damaged or missing "
                f"(at most {limit:.1%} may be; max_skipped raises it): "
                f"{'; '.join(examples[:EXAMPLES])}"
            )

    def as_json(self) -> dict[str, Any]:
        """{reason: {count, damage, examples}}, sorted by reason."""
        return {
            reason: {
                "count": count,
                "damage": reason in self.damage,
                "examples": self.examples[reason],
            }
            for reason, count in sorted(self.counts.items())
        }
