"""Text that came from the other side, made fit for messages, rows and logs."""

import logging
import reprlib
import time
import traceback

import numpy as np

MOST_LINES = 60  # of a traceback
LONGEST_LINE = 220  # characters; the row that holds a message says where too
TRACEBACK = "Traceback (most recent call last)"


class _Short(reprlib.Repr):
    """repr() that never formats more than it shows."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring, self.maxdict, self.maxlist, self.maxtuple = 2, 40, 4, 8, 8

    def repr_bytes(self, value: bytes, level: int) -> str:
        return f"{len(value)} bytes"

    def repr_ndarray(self, value: np.ndarray, level: int) -> str:
        return f"an array of {value.dtype} {value.shape}"

    def repr_instance(self, x: object, level: int) -> str:
        return type(x).__name__


_short = _Short()


def shown(value: object) -> str:
    """A value of plain data."""
    return one_line(_short.repr(value))


def one_line(text: str, limit: int = LONGEST_LINE) -> str:
    """A text in one line, without characters that a terminal obeys."""
    cut = text[: 4 * limit]  # spaces that fall away are not worth reading all of a long text
    line = " ".join("".join(c if c.isprintable() else " " for c in cut).split())
    return line if len(line) <= limit and len(text) == len(cut) else f"{line[: limit - 3]}..."


def printable(line: str, limit: int = LONGEST_LINE) -> str:
    """The start of a line as it stands, without characters that a terminal obeys."""
    return "".join(c if c.isprintable() else "?" for c in line[:limit])


def cause_first(message: str) -> str:
    """A message in one line; of a traceback, its last line."""
    if TRACEBACK in message:
        message = next(line for line in reversed(message.splitlines()) if line.strip())
    return one_line(message)


def text_of(error: BaseException) -> str:
    """What an exception says, even of one that cannot say it."""
    try:
        return f"{type(error).__name__}: {error}"
    except BaseException:  # noqa: BLE001 - its __str__ is a stranger's code
        return type(error).__name__


class RateLimitedLog:
    """Logs what strangers can cause as often as they like: at most one line per every_s seconds, and
    how many were left out."""

    def __init__(self, logger: logging.Logger, every_s: float) -> None:
        self._logger, self._every_s = logger, every_s
        self._next, self._left_out = 0.0, 0

    def warning(self, text: str, *values: object) -> None:
        """Log a warning, unless there was one just now."""
        if self._may_speak():
            self._logger.warning(text + self._others(), *values)

    def exception(self, text: str, error: BaseException) -> None:
        """Log an error with its traceback, indented: a stranger's words may be in it."""
        if self._may_speak():
            lines = "".join(traceback.format_exception(error)).rstrip().split("\n")
            shown = "\n".join(f"  {printable(line)}" for line in lines[-MOST_LINES:])
            self._logger.error("%s%s\n%s", text, self._others(), shown)

    def _may_speak(self) -> bool:
        now = time.monotonic()
        if now < self._next:
            self._left_out += 1
            return False
        self._next = now + self._every_s
        return True

    def _others(self) -> str:
        count, self._left_out = self._left_out, 0
        return f" (and {count} more like this since the last one)" if count else ""
