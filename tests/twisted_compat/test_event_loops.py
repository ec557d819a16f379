"""Coroutines as Deferreds, on both kinds of event loop: test_reactors.py runs this once more."""

from __future__ import annotations

import asyncio
import gc
import inspect
import weakref
from collections.abc import Coroutine
from typing import Any

import pytest
import twisted
from twisted.internet import defer, reactor, task

from .. import tasks
from .cases import ON_ASYNCIO, TwistedCase


class Something:
    pass


class TestRunning(TwistedCase):
    """What becomes of a coroutine that runs on the event loop, and of its Deferred."""

    def setUp(self) -> None:
        super().setUp()
        self.ended: list[str] = []

    async def wait(self) -> None:
        self.ended.append("begun")
        try:
            await asyncio.sleep(60)
        finally:
            self.ended.append("cancelled")

    @defer.inlineCallbacks
    def until_ended(self, *steps: str) -> Any:
        while self.ended != [*steps]:
            yield task.deferLater(reactor, 0.01)

    @defer.inlineCallbacks
    def quiet(self, during: Any) -> Any:
        """Run a generator of Deferreds; neither asyncio nor Twisted may log anything."""
        with self.assertNoLogs("asyncio"):
            yield defer.inlineCallbacks(during)()
            yield self.tx_app.run(asyncio.sleep(0))  # the loop has let go of what came before
            gc.collect()
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_a_cancelled_one_fires_at_once_and_its_coroutine_ends(self) -> Any:
        def during() -> Any:
            d = self.tx_app.run(self.wait())
            yield self.until_ended("begun")
            d.cancel()
            error = self.failureResultOf(d, defer.CancelledError).value
            self.assertIsInstance(error, Exception)
            yield self.until_ended("begun", "cancelled")

        return self.quiet(during)

    def test_one_that_is_cancelled_before_its_first_step_does_not_begin(self) -> Any:
        def during() -> Any:
            coroutine = self.wait()
            d = self.tx_app.run(coroutine)
            d.cancel()
            self.failureResultOf(d, defer.CancelledError)
            while inspect.getcoroutinestate(coroutine) != inspect.CORO_CLOSED:
                yield task.deferLater(reactor, 0.01)
            if ON_ASYNCIO:  # a thread may have begun it by then
                self.assertEqual(self.ended, [])

        return self.quiet(during)

    def test_what_a_cancelled_one_comes_to_later_is_ignored(self) -> Any:
        async def fail_late() -> None:
            try:
                await self.wait()
            except asyncio.CancelledError:
                await asyncio.sleep(0.01)
                self.ended.append("failed")
                raise ValueError("too late") from None

        async def return_late() -> str:
            try:
                await self.wait()
            except asyncio.CancelledError:
                self.ended.append("returned")
            return "too late"

        def during() -> Any:
            for late, how in ((fail_late, "failed"), (return_late, "returned")):
                self.ended.clear()
                d = self.tx_app.run(late())
                yield self.until_ended("begun")
                d.cancel()
                self.failureResultOf(d, defer.CancelledError)
                yield self.until_ended("begun", "cancelled", how)
                self.assertIsNone(self.successResultOf(d))

        return self.quiet(during)

    @pytest.mark.skipif(not ON_ASYNCIO, reason="the loop runs in another thread")
    def test_one_may_be_cancelled_once_its_task_is_done(self) -> Any:
        async def cancel_soon(outcome: Coroutine[Any, Any, Any]) -> Any:
            asyncio.get_running_loop().call_soon(d.cancel)  # before what the task calls
            return await outcome

        async def value() -> int:
            return 1

        async def error() -> None:
            raise ValueError

        d: defer.Deferred[Any]

        def during() -> Any:
            nonlocal d
            for outcome in (value(), error()):
                d = self.tx_app.run(cancel_soon(outcome))
                yield self.assertFailure(d, defer.CancelledError)

        return self.quiet(during)

    def test_it_may_be_cancelled_twice_or_after_it_has_fired(self) -> Any:
        def during() -> Any:
            d = self.tx_app.run(self.wait())
            d.cancel()
            d.cancel()
            yield self.assertFailure(d, defer.CancelledError)
            d.cancel()
            fired = self.tx_app.run(asyncio.sleep(0, "value"))
            yield fired
            fired.cancel()

        return self.quiet(during)

    def test_a_timeout_gives_twisteds_error_and_ends_the_coroutine(self) -> Any:
        def during() -> Any:
            d = self.tx_app.run(self.wait())
            yield self.until_ended("begun")
            yield self.assertFailure(d.addTimeout(0.05, reactor), defer.TimeoutError)
            yield self.until_ended("begun", "cancelled")

        return self.quiet(during)

    def test_inline_callbacks_catch_it(self) -> Any:
        async def cancelled() -> None:
            raise asyncio.CancelledError

        def during() -> Any:
            caught = ""
            try:
                yield self.tx_app.run(cancelled())
            except Exception as error:
                caught = type(error).__module__
            self.assertEqual(caught, "twisted.internet.defer")
            called = self.tx_app.apply_async(tasks.add, (1, 1), countdown=60)
            reactor.callLater(0, called.cancel)
            with self.assertRaises(defer.CancelledError):
                yield called

        return self.quiet(during)

    def test_cancelling_what_waits_for_it_cancels_it(self) -> Any:
        @defer.inlineCallbacks
        def waits() -> Any:
            yield self.tx_app.run(self.wait())

        def during() -> Any:
            d = waits()
            yield self.until_ended("begun")
            d.cancel()
            self.failureResultOf(d, defer.CancelledError)
            yield self.until_ended("begun", "cancelled")

        return self.quiet(during)

    @defer.inlineCallbacks
    def test_an_error_shows_where_the_coroutine_raised_it(self) -> Any:
        async def raises() -> None:
            raise ValueError("here")

        d = self.tx_app.run(raises())
        yield d.addErrback(lambda failure: self.ended.append(failure.getTraceback()))
        (traceback,) = self.ended
        self.assertIn("in raises", traceback)
        self.assertNotIn("in adapt", traceback)

    @defer.inlineCallbacks
    def test_an_error_that_nobody_handles_is_logged_once(self) -> Any:
        async def raises() -> None:
            raise ValueError("unhandled")

        with self.assertNoLogs("asyncio"):
            d = self.tx_app.run(raises())
            while not d.called:
                yield task.deferLater(reactor, 0.01)
            del d
            yield self.tx_app.run(asyncio.sleep(0))
            gc.collect()
        (logged,) = self.flushLoggedErrors()
        self.assertEqual(str(logged.value), "unhandled")

    @pytest.mark.skipif(twisted.version.major < 25, reason="pytest itself keeps those tracebacks")
    @defer.inlineCallbacks
    def test_what_has_ended_is_freed_without_the_garbage_collector(self) -> Any:
        seen: list[weakref.ref[Something]] = []

        async def ends(how: str) -> Any:
            something = Something()
            seen.append(weakref.ref(something))
            await asyncio.sleep(0)
            if how == "returns":
                return something
            if how == "is cancelled":
                raise asyncio.CancelledError
            raise LookupError(something)

        gc.disable()
        self.addCleanup(gc.enable)
        for how in ("returns", "is cancelled", "raises"):
            yield self.tx_app.run(ends(how)).addBoth(lambda outcome: None)
            while seen[-1]() is not None:  # the loop's thread may hold it for a moment
                yield task.deferLater(reactor, 0.01)
