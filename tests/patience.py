"""How long tests wait on a machine that has other things to do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

__all__ = ["LATE", "PATIENCE", "until"]

#: Seconds that what has to happen is waited for. No test that passes waits as long.
PATIENCE = 60
#: Seconds by which a busy machine may be late, where the time that something takes is tested. What
#: such a test is there to find takes longer, or does not end.
LATE = 8


async def until(condition: Callable[[], object], within: float = PATIENCE) -> None:
    """Return once a condition, which may block, is true; fail if it is not in so many seconds."""
    deadline = time.monotonic() + within
    while not await asyncio.to_thread(condition):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
