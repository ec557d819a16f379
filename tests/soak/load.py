"""Constant load: calls of all kinds, some of which are given up, and all of which are followed."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from typing import Any

from celery import group

from bridgetask import (
    AsyncResult,
    BridgetaskError,
    Client,
    NotSent,
    ResultTimeout,
    Unconfirmed,
)

from .account import Account, Entry
from .tasks import count, double, fail

__all__ = ["Load"]

#: Calls a second.
RATE = 40
#: Seconds that a result may take, faults included.
PATIENCE = 90.0
#: Seconds after the last fault in which a task whose send is unknown may yet give an answer.
LATE = 10.0


class Load:
    """Sends calls until it is stopped, and finds out what became of each."""

    def __init__(self, client: Client, account: Account, chance: random.Random) -> None:
        self._client = client
        self._account = account
        self._chance = chance
        self._following: set[asyncio.Task[None]] = set()
        self._number = 0
        self._quiet_since = float("inf")

    async def run(self, seconds: float) -> None:
        """Make calls for so long."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        self._quiet_since = float("inf")
        kinds = [self._plain, self._plain, self._failing, self._progress, self._cancelled]
        kinds += [self._timed_out, self._group]
        while loop.time() < end:
            self._number += 1
            self._follow(self._chance.choice(kinds)(self._number))
            await asyncio.sleep(self._chance.expovariate(RATE))

    async def settled(self) -> None:
        """Return when it is known what became of every call. The faults are over by now."""
        self._quiet_since = asyncio.get_running_loop().time()
        while self._following:
            await asyncio.wait(self._following)

    @property
    def following(self) -> int:
        return len(self._following)

    def _follow(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._following.add(task)
        task.add_done_callback(self._followed)

    def _followed(self, task: asyncio.Task[None]) -> None:
        self._following.discard(task)
        error = task.exception()
        if error is not None:
            self._account.problems.append(f"unexpected {error!r}")

    def _enter(self, handle: AsyncResult[Any], kind: str) -> Entry:
        entry = self._account.entries[handle.id] = Entry(kind)
        self._follow(self._sent(handle, entry))
        return entry

    async def _sent(self, handle: AsyncResult[Any], entry: Entry) -> None:
        try:
            await handle.sent()
        except NotSent:
            entry.send = "not sent"
        except Unconfirmed as error:
            entry.send = "unknown"
            if error.task_id != handle.id:
                self._account.problems.append(f"{handle.id} is said to be {error.task_id}")
        else:
            entry.send = "confirmed"

    async def _answer(self, handle: AsyncResult[Any], entry: Entry, expected: Any) -> None:
        """Wait for the answer, again where that was given up before."""
        try:
            answer: Any = await handle.get(timeout=PATIENCE)
        except ValueError as error:  # the task's own
            answer = error.args[0]
        except Unconfirmed:
            await self._late_answer(handle, entry, expected)
            return
        except BridgetaskError as error:
            entry.outcome = type(error).__name__
            return
        self._compare(handle, entry, answer, expected)

    async def _late_answer(self, handle: AsyncResult[Any], entry: Entry, expected: Any) -> None:
        """See whether a task whose send is unknown gives an answer after all."""
        loop = asyncio.get_running_loop()
        while not handle.ready() and loop.time() < self._quiet_since + LATE:
            await asyncio.sleep(0.5)
        if handle.ready():
            answer = handle.result
            answer = answer.args[0] if isinstance(answer, ValueError) else answer
            self._compare(handle, entry, answer, expected)
        else:
            entry.outcome = "Unconfirmed"

    def _compare(self, handle: AsyncResult[Any], entry: Entry, answer: Any, expected: Any) -> None:
        entry.outcome = "answered"
        if answer != expected:
            self._account.problems.append(f"wrong: {entry.kind} {handle.id} gave {answer!r}")

    # The kinds of calls.

    async def _plain(self, number: int) -> None:
        handle = self._client.delay(double, number)
        await self._answer(handle, self._enter(handle, "plain"), number * 2)

    async def _failing(self, number: int) -> None:
        handle = self._client.delay(fail, number)
        await self._answer(handle, self._enter(handle, "failing"), number)

    async def _progress(self, number: int) -> None:
        handle = self._client.delay(count, number)
        entry = self._enter(handle, "progress")
        with suppress(BridgetaskError, TimeoutError):  # the answer says which
            async with asyncio.timeout(PATIENCE):
                async for update in handle.updates():
                    if update.state == "PROGRESS" and update.result["number"] != number:
                        self._account.problems.append(f"wrong progress: {update}")
        await self._answer(handle, entry, number * 2)

    async def _cancelled(self, number: int) -> None:
        handle = self._client.delay(double, number, self._chance.random() * 0.1)
        entry = self._enter(handle, "cancelled")
        waiting = asyncio.ensure_future(handle.get())
        await asyncio.sleep(self._chance.random() * 0.1)
        waiting.cancel()
        await asyncio.wait([waiting])
        await self._answer(handle, entry, number * 2)

    async def _timed_out(self, number: int) -> None:
        handle = self._client.delay(double, number, self._chance.random() * 0.1)
        entry = self._enter(handle, "timed out")
        with suppress(ResultTimeout, NotSent, Unconfirmed):
            await handle.get(timeout=self._chance.random() * 0.1)
        await self._answer(handle, entry, number * 2)

    async def _group(self, number: int) -> None:
        handle = self._client.apply_async(group(double.s(number + n) for n in range(4)))
        members = [(each, self._enter(each, "group")) for each in handle.results]
        await asyncio.gather(
            *(
                self._answer(each, entry, (number + n) * 2)
                for n, (each, entry) in enumerate(members)
            )
        )
