"""On the asyncio reactor every future becomes a Deferred by ``Deferred.fromFuture``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from celery import group
from twisted.internet import defer, reactor, task

import bridgetask
from bridgetask.twisted_compat import CeleryClient, TwistedCelery
from bridgetask.twisted_compat.result import _AWAITABLE

from .. import tasks
from .cases import ON_ASYNCIO, TwistedCase

pytestmark = pytest.mark.skipif(not ON_ASYNCIO, reason="there is no such conversion")

from_future = defer.Deferred.fromFuture


class Gate:
    """Stands in for ``Deferred.fromFuture``: what it makes fires once the gate is open."""

    def __init__(self) -> None:
        self.made = 0
        self._open = False
        self._held: list[tuple[defer.Deferred[Any], Any]] = []

    def __call__(self, future: asyncio.Future[Any]) -> defer.Deferred[Any]:
        self.made += 1
        return from_future(future).addBoth(self._hold)

    def _hold(self, outcome: Any) -> Any:
        if self._open:
            return outcome
        held: defer.Deferred[Any] = defer.Deferred()
        self._held.append((held, outcome))
        return held

    @property
    def holds_all(self) -> bool:
        """Whether all futures have ended, so that only the gate keeps the Deferreds back."""
        return 0 < self.made == len(self._held)

    def open(self) -> None:
        self._open = True
        for held, outcome in self._held:
            held.callback(outcome)


class NotConverted(Exception):
    pass


def refuse(future: asyncio.Future[Any]) -> defer.Deferred[Any]:
    """Stand in for ``Deferred.fromFuture``, and convert nothing."""
    future.cancel()
    raise NotConverted


def first_event(tx_app: TwistedCelery) -> defer.Deferred[Any]:
    """Return a Deferred that fires with the first event of a stream, which then ends."""
    first: defer.Deferred[Any] = defer.Deferred()

    def take(event: Any) -> None:
        if not first.called:
            first.callback(event)

    events = tx_app.events(take)
    events.addErrback(lambda failure: first.called or first.errback(failure))
    return first.addBoth(lambda outcome: (events.cancel(), outcome)[1])


class TestFromFuture(TwistedCase):
    timeout = 110

    @defer.inlineCallbacks
    def ways(self) -> Any:
        """Return everything that gives a Deferred of what is yet to come, by its name."""
        tx_app = self.tx_app
        call = tx_app.apply_async(tasks.add, (1, 1))
        members = tx_app.apply_async(group([tasks.add.s(1, 1)]))
        yield defer.gatherResults([call, members])
        add = CeleryClient(tasks.add, tx_app)
        pair = group([tasks.add.s(1, 1), tasks.add.s(2, 2)])
        ways: dict[str, Callable[[], defer.Deferred[Any]]] = {
            "send_task": lambda: tx_app.send_task("tests.tasks.add", (1, 1)),
            "delay": lambda: tx_app.delay(tasks.add, 1, 1),
            "apply_async": lambda: tx_app.apply_async(tasks.add, (1, 1)),
            "a group": lambda: tx_app.apply_async(pair),
            "CeleryClient": lambda: add.delay(1, 1),
            "a signature": lambda: add.s(1, 1).delay(),
            "map": lambda: tx_app.map(tasks.identity, [1]),
            "result": lambda: tx_app.result("of somebody else"),
            "group_result": lambda: tx_app.group_result("of somebody else"),
            "run": lambda: tx_app.run(asyncio.sleep(0)),
            "connect": tx_app.connect,
            "a command": lambda: tx_app.control.ping(limit=1, timeout=20),
            "a question": lambda: tx_app.control.inspect(limit=1, timeout=20).ping(),
            "events": lambda: first_event(tx_app),
            "updates": lambda: call.updates(lambda update: None),
            "as_completed": lambda: members.as_completed(lambda member: None),
            "collect": lambda: call.collect(),
            "iterdeps": lambda: call.iterdeps(),
        }
        for name in sorted(_AWAITABLE - {"forget", "delete"}):
            for handle in (call, members):
                if hasattr(handle, name):
                    ways[f"{name} of {handle}"] = getattr(handle, name)
        ways["forget"] = call.forget
        ways["delete"] = members.delete
        return ways

    @defer.inlineCallbacks
    def assert_converted(self, name: str, call: Callable[[], defer.Deferred[Any]]) -> Any:
        gate = Gate()
        with mock.patch.object(defer.Deferred, "fromFuture", gate):
            d = call()
            while not gate.holds_all:
                self.assertFalse(d.called, f"{name} fired by another conversion")
                yield task.deferLater(reactor, 0.01)
            yield task.deferLater(reactor, 0)
            self.assertFalse(d.called, f"{name} fired by another conversion")
            gate.open()
            yield d.addErrback(lambda failure: failure.trap(bridgetask.ResultUnavailable))

    @defer.inlineCallbacks
    def test_everything_passes_through_it(self) -> Any:
        for name, call in (yield self.ways()).items():
            yield self.assert_converted(name, call)
        yield self.assert_converted("disconnect", self.tx_app.disconnect)

    @defer.inlineCallbacks
    def test_nothing_works_without_it(self) -> Any:
        for name, call in (yield self.ways()).items():
            with mock.patch.object(defer.Deferred, "fromFuture", refuse):
                d = defer.maybeDeferred(call)
            self.assertIsInstance(self.failureResultOf(d).value, NotConverted, name)
        with (
            mock.patch.object(defer.Deferred, "fromFuture", refuse),
            self.assertRaises(NotConverted),
        ):
            self.tx_app.disconnect()
        yield defer.Deferred.fromFuture(asyncio.ensure_future(self.tx_app.client.close()))

    @defer.inlineCallbacks
    def test_each_item_of_an_iteration_passes_through_it(self) -> Any:
        d = self.tx_app.delay(tasks.progress, 3)
        yield d
        heard: list[Any] = []
        with mock.patch.object(defer.Deferred, "fromFuture", side_effect=from_future) as converted:
            yield d.updates(heard.append)
        self.assertEqual(converted.call_count, len(heard) + 1)

    def test_a_call_is_one_conversion(self) -> None:
        with mock.patch.object(defer.Deferred, "fromFuture", side_effect=from_future) as converted:
            d = self.tx_app.delay(tasks.add, 1, 1)
        self.assertEqual(converted.call_count, 1)
        d.cancel()
        self.failureResultOf(d, defer.CancelledError)


def test_the_package_converts_in_one_place() -> None:
    package = Path(bridgetask.__file__).parent
    sources = {path: path.read_text() for path in package.rglob("*.py")}
    assert sum(source.count("fromFuture(") for source in sources.values()) == 1
    for path, source in sources.items():
        if path.parent.name == "twisted_compat" and path.name != "loop_thread.py":
            for other in ("add_done_callback", "ensure_future", "fromCoroutine(", "asFuture"):
                assert other not in source, path
