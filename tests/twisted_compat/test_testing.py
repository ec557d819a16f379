"""What users of Twisted test their own programs with."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from celery import chord
from twisted.internet import defer
from twisted.trial import unittest

from bridgetask.testing import InMemoryClient
from bridgetask.twisted_compat import TwistedCelery

from ..fix_rabbitmq import make_app


class TestInMemory(unittest.TestCase):
    timeout = 30

    @defer.inlineCallbacks
    def test_tasks_are_run_in_this_process(self) -> Any:
        app = make_app("twisted", "memory://", "cache+memory://")

        @app.task(shared=False, bind=True, name="again")
        def again(self: Any, number: int) -> int:
            self.update_state(state="PROGRESS", meta=number)
            if not self.request.retries:
                self.retry(countdown=3600)
            return number

        @app.task(shared=False, name="total")
        def total(numbers: list[int]) -> int:
            return sum(numbers)

        @app.task(shared=False, name="caller")
        def caller() -> None:
            again.delay(5)

        tx_app = TwistedCelery(InMemoryClient(app))
        try:
            self.assertEqual((yield tx_app.delay(again, 1)), 1)
            parts = [again.s(number) for number in (1, 2)]
            self.assertEqual((yield tx_app.apply_async(chord(parts, total.s()))), 3)
            call = tx_app.delay(caller)
            yield call
            [child] = call.children
            self.assertEqual((yield child), 5)
        finally:
            yield tx_app.disconnect()

    @defer.inlineCallbacks
    def test_progress_is_seen_while_a_task_runs(self) -> Any:
        app, seen = make_app("twisted", "memory://", "cache+memory://"), threading.Event()

        @app.task(shared=False, bind=True, name="progress")
        def progress(self: Any) -> list[Any]:
            self.update_state(state="PROGRESS", meta=1)
            return [seen.wait(30), asyncio.run(five())]

        async def five() -> int:
            return 5

        def take(update: Any) -> None:
            states.append(update.state)
            seen.set()

        states: list[str] = []
        tx_app = TwistedCelery(InMemoryClient(app))
        try:
            call = tx_app.delay(progress)
            yield call.updates(take)
            self.assertEqual((yield call), [True, 5])
            self.assertEqual(states, ["PROGRESS", "SUCCESS"])
            late: list[str] = []
            yield tx_app.result(call.id).updates(lambda update: late.append(update.state))
            self.assertEqual(late, states)
        finally:
            yield tx_app.disconnect()
