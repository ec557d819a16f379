"""Warnings about received messages, limited: strangers may send any number of them."""

from __future__ import annotations

import logging
import time

__all__ = ["LimitedLog"]

#: How many warnings are logged in how many seconds.
_BURST, _PERIOD = 10, 60.0


class LimitedLog:
    """Logs at most a number of warnings in a period, and later how many it left out."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._period_ends = 0.0
        self._logged = 0
        self._left_out = 0

    def warning(self, message: str, *args: object) -> None:
        """Log a warning, unless the limit of this period is reached."""
        now = time.monotonic()
        if now >= self._period_ends:
            self._period_ends = now + _PERIOD
            self._logged = 0
            if self._left_out:
                self._logger.warning("%d warnings like the next one were left out", self._left_out)
                self._left_out = 0
        if self._logged == _BURST:
            self._left_out += 1
            return
        self._logged += 1
        self._logger.warning(message, *args)
