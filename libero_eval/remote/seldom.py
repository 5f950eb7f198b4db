"""Log lines that strangers can cause as often as they like."""

import logging
import time


class Seldom:
    """Logs at most one line per every_s seconds, and says how many it left out."""

    def __init__(self, logger: logging.Logger, every_s: float) -> None:
        self._logger, self._every_s = logger, every_s
        self._next, self._left_out = 0.0, 0

    def warning(self, text: str, *values: object) -> None:
        """Log a warning, unless there was one just now."""
        if self._may_speak():
            self._logger.warning(text + self._others(), *values)

    def exception(self, text: str, error: BaseException | None = None) -> None:
        """Log an error with a traceback, of the one being handled if none is given."""
        if self._may_speak():
            self._logger.error(text + self._others(), exc_info=error or True)

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
