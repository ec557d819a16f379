"""Constant load: calls of all kinds, some of which are given up, and all of which are followed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from celery import group

from bridgetask import AsyncResult, BridgetaskError, Client, NotSent, ResultTimeout, Unconfirmed

from .account import Account, Entry
from .tasks import app, count, double, fail

__all__ = ["Load"]

#: Calls a second.
RATE = 40
#: Seconds that a result may take, faults included.
PATIENCE = 90.0
#: Seconds after the last fault in which a task whose send is unknown may yet give an answer.
LATE = 10.0


class Load:
    """Sends calls until it is stopped, and finds out what became of each.

    :param clients: by where their results come from, each with the share of the load that it gets.
    """

    def __init__(
        self, clients: Mapping[str, tuple[Client, int]], account: Account, chance: random.Random
    ) -> None:
        self._clients = {results: client for results, (client, _) in clients.items()}
        self._shares = [share for _, share in clients.values()]
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
            (results,) = self._chance.choices(list(self._clients), self._shares)
            self._follow(self._chance.choice(kinds)(results, self._number))
            await asyncio.sleep(self._chance.expovariate(RATE))

    async def settled(self) -> None:
        """Return when it is known what became of every call. The faults are over by now."""
        self._quiet_since = asyncio.get_running_loop().time()
        while self._following:
            await asyncio.wait(self._following)

    async def recovered(self) -> float:
        """Return how many seconds it took until a call by each client was answered."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        await asyncio.gather(*(self._answered(results) for results in self._clients))
        return loop.time() - began

    async def _answered(self, results: str) -> None:
        outcome = ""
        while outcome != "answered":
            self._number += 1
            handle = self._call(results, double, self._number)
            entry = self._enter(handle, f"{results} probe")
            await self._answer(handle, entry, self._number * 2)
            outcome = entry.outcome

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

    def _call(self, results: str, task: Any, *args: Any) -> AsyncResult[Any]:
        return self._clients[results].send_task(task.name, args)

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
            self._account.errors["the task's own"] += 1
            answer = error.args[0]
        except Unconfirmed:
            self._account.errors["Unconfirmed"] += 1
            await self._late_answer(handle, entry, expected)
            return
        except BridgetaskError as error:
            entry.outcome = type(error).__name__
            self._account.errors[entry.outcome] += 1
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

    async def _plain(self, results: str, number: int) -> None:
        handle = self._call(results, double, number)
        await self._answer(handle, self._enter(handle, f"{results} plain"), number * 2)

    async def _failing(self, results: str, number: int) -> None:
        handle = self._call(results, fail, number)
        await self._answer(handle, self._enter(handle, f"{results} failing"), number)

    async def _progress(self, results: str, number: int) -> None:
        handle = self._call(results, count, number)
        entry = self._enter(handle, f"{results} progress")
        with suppress(BridgetaskError, TimeoutError):  # the answer says which
            async with asyncio.timeout(PATIENCE):
                async for update in handle.updates():
                    if update.state == "PROGRESS" and update.result["number"] != number:
                        self._account.problems.append(f"wrong progress: {update}")
        await self._answer(handle, entry, number * 2)

    async def _cancelled(self, results: str, number: int) -> None:
        handle = self._call(results, double, number, self._chance.random() * 0.1)
        entry = self._enter(handle, f"{results} cancelled")
        waiting = asyncio.ensure_future(handle.get())
        await asyncio.sleep(self._chance.random() * 0.1)
        waiting.cancel()
        await asyncio.wait([waiting])
        self._account.waits["cancelled" if waiting.cancelled() else "over before that"] += 1
        await self._answer(handle, entry, number * 2)

    async def _timed_out(self, results: str, number: int) -> None:
        handle = self._call(results, double, number, self._chance.random() * 0.1)
        entry = self._enter(handle, f"{results} timed out")
        try:
            await handle.get(timeout=self._chance.random() * 0.1)
        except ResultTimeout:
            self._account.waits["timed out"] += 1
        except (NotSent, Unconfirmed):
            self._account.waits["failed with the send"] += 1
        else:
            self._account.waits["over before that"] += 1
        await self._answer(handle, entry, number * 2)

    async def _group(self, results: str, number: int) -> None:
        members_of_it = [app.signature(double.name, (number + n,)) for n in range(4)]
        handle = self._clients[results].apply_async(group(members_of_it, app=app))
        members = [(each, self._enter(each, f"{results} group")) for each in handle.results]
        await asyncio.gather(
            *(
                self._answer(each, entry, (number + n) * 2)
                for n, (each, entry) in enumerate(members)
            )
        )
