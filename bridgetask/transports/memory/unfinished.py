"""How many tasks the worker in this process has not finished yet."""

from __future__ import annotations

from ...core.completion import Completion

__all__ = ["Unfinished"]


class Unfinished:
    """Counts tasks that were taken and have not ended. Belongs to an event loop."""

    def __init__(self) -> None:
        self._number = 0
        self._none = Completion()
        self._none.complete()

    def begin(self) -> None:
        """Count one more."""
        self._number += 1
        self._none.reopen()

    def end(self) -> None:
        """Count one less."""
        self._number -= 1
        if not self._number:
            self._none.complete()

    async def none_left(self) -> None:
        """Return when there are none, nor any that those have sent."""
        while not self._none.done:  # it may be opened again before we get our turn
            await self._none.wait()
