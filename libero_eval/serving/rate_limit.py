"""Log lines that strangers can cause as often as they like."""

import logging
import time
import traceback

from libero_eval.serving.shown import printable

MOST_LINES = 60  # of a traceback


class Seldom:
    """Logs at most one line per every_s seconds, and says how many it left out."""

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
