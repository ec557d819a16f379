"""Constant load for faults that must not lose any of it."""

from __future__ import annotations

import asyncio
from typing import Any

from .callers import Caller

__all__ = ["PATIENT", "Load"]

#: Retries for as long as the deadline allows.
PATIENT = {"task_publish_retry_policy": {"max_retries": None, "interval_start": 0.2}}


class Load:
    """Sends without a pause, and remembers what became of each task."""

    def __init__(self, opened: list[Caller], name: str, **options: Any) -> None:
        self._opened = opened
        self._name = name
        self._options = options
        self.handles: list[Any] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._stopped = False

    async def _run(self, calls: Caller) -> None:
        while not self._stopped:
            self.handles.append(
                calls.send_task(self._name, (len(self.handles), 1), **self._options)
            )
            await asyncio.sleep(0.01)

    async def __aenter__(self) -> Load:
        self._tasks = [asyncio.ensure_future(self._run(calls)) for calls in self._opened]
        await asyncio.sleep(0.5)
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._stopped = True
        await asyncio.gather(*self._tasks)
