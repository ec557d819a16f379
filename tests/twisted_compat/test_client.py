"""The Twisted client. Runs on the asyncio reactor; test_reactors.py runs it on the default one."""

from __future__ import annotations

import asyncio
import gc
import inspect
import threading
import time
from typing import Any

import pytest
from celery import Celery, group
from twisted.internet import defer, reactor, task
from twisted.trial import unittest

from bridgetask import (
    AsyncResult,
    BrokerUnreachable,
    Client,
    ClientClosed,
    Control,
    GroupResult,
    Inspect,
    InvalidOption,
    ResultTimeout,
    ResultUnavailable,
    errors,
)
from bridgetask.twisted_compat import (
    CeleryClient,
    DeferrableTask,
    DeferredSignature,
    DeferredTask,
    TaskRevoked,
    TwistedCelery,
    install,
)
from bridgetask.wire.canvas import AT_ONCE

from .. import tasks
from ..fix_rabbitmq import make_app
from .cases import ON_ASYNCIO, TwistedCase


class TestTwistedCelery(TwistedCase):
    @defer.inlineCallbacks
    def test_calls_give_deferreds(self) -> Any:
        d = self.tx_app.send_task("tests.tasks.add", args=(1, 2))
        self.assertIsInstance(d, DeferredTask)
        self.assertIsInstance(d, defer.Deferred)
        self.assertEqual((yield d), 3)
        self.assertEqual((yield self.tx_app.delay(tasks.add, 2, 3)), 5)
        self.assertEqual((yield self.tx_app.apply_async(tasks.add.s(3), (4,))), 7)

    @defer.inlineCallbacks
    def test_arguments_of_tasks_may_have_any_name(self) -> Any:
        named = {"task": 1, "args": 2, "kwargs": 3, "name": 4}
        echo = CeleryClient(tasks.echo, self.tx_app)
        self.assertEqual((yield self.tx_app.delay(tasks.echo, **named)), [[], named])
        self.assertEqual((yield echo.delay(**named)), [[], named])
        self.assertEqual((yield echo.s().delay(**named)), [[], named])
        self.assertEqual((yield echo.s(**named).delay()), [[], named])
        self.assertEqual((yield echo.si(**named).delay()), [[], named])

    @defer.inlineCallbacks
    def test_a_failing_task_errbacks_with_its_own_exception(self) -> Any:
        d = self.tx_app.delay(tasks.fail, "ComplexError", 1, "x")
        error = yield self.assertFailure(d, tasks.ComplexError)
        self.assertEqual(error.code, 1)
        self.assertIsInstance(error.__cause__, errors.RemoteTraceback)

    @defer.inlineCallbacks
    def test_many_calls_share_the_thread(self) -> Any:
        count = threading.active_count()
        yield self.tx_app.connect()
        ds = [self.tx_app.delay(tasks.add, n, 1) for n in range(300)]
        self.assertEqual(threading.active_count() - count, 0 if ON_ASYNCIO else 1)
        self.assertEqual((yield defer.gatherResults(ds)), list(range(1, 301)))
        self.assertEqual(threading.active_count() - count, 0 if ON_ASYNCIO else 1)

    @defer.inlineCallbacks
    def test_several_clients_share_the_thread(self) -> Any:
        others = [TwistedCelery(self.app) for _ in range(3)]
        yield defer.gatherResults([each.delay(tasks.add, 1, 1) for each in [self.tx_app, *others]])
        loops = [each for each in threading.enumerate() if each.name == "bridgetask loop"]
        self.assertEqual(len(loops), 0 if ON_ASYNCIO else 1)
        yield defer.gatherResults([each.disconnect() for each in others])

    @defer.inlineCallbacks
    def test_what_is_called_in_the_first_turn_shares_one_session(self) -> Any:
        for _ in range(20):
            tx_app = TwistedCelery(self.app)
            connected = tx_app.connect()  # on the loop's thread, while this one calls a task
            d = tx_app.delay(tasks.add, 1, 2).addTimeout(5, reactor)
            self.assertEqual((yield d), 3)
            yield connected
            self.assertIs(d.task._session, tx_app.client._sessions.current)
            yield tx_app.disconnect()

    def test_bad_input_raises_at_the_call(self) -> None:
        with self.assertRaisesRegex(InvalidOption, "args: must be a list or tuple"):
            self.tx_app.send_task("tests.tasks.add", args="ab")
        with self.assertRaises(TypeError):
            self.tx_app.delay(tasks.add, 1)
        with self.assertRaisesRegex(InvalidOption, "on_cancel"):
            self.tx_app.send_task("tests.tasks.add", on_cancel="x")

    @defer.inlineCallbacks
    def test_a_broker_that_is_not_there_errbacks(self) -> Any:
        tx_app = TwistedCelery(make_app("nowhere", "amqp://127.0.0.1:1//"), send_timeout=5)
        yield self.assertFailure(tx_app.send_task("x", retry=False), BrokerUnreachable)
        yield self.assertFailure(tx_app.connect(), BrokerUnreachable)
        yield tx_app.disconnect()

    @defer.inlineCallbacks
    def test_disconnecting_is_final_and_can_be_asked_for_twice(self) -> Any:
        yield self.tx_app.delay(tasks.add, 1, 1)
        first, second = self.tx_app.disconnect(), self.tx_app.close()
        yield defer.gatherResults([first, second])
        with self.assertRaises(ClientClosed):
            self.tx_app.delay(tasks.add, 1, 1)
        self.assertTrue(self.tx_app.client.closed)

    def test_disconnecting_an_idle_client_is_done_at_once(self) -> None:
        self.successResultOf(TwistedCelery(self.app).disconnect())

    @defer.inlineCallbacks
    def test_disconnecting_under_a_waiting_deferred_errbacks_it(self) -> Any:
        d = self.tx_app.apply_async(tasks.add, (1, 1), countdown=60)
        yield d.sent()
        yield self.tx_app.disconnect()
        yield self.assertFailure(d, ClientClosed)

    @defer.inlineCallbacks
    def test_disconnecting_refuses_calls_at_once(self) -> Any:
        yield self.tx_app.connect()
        disconnected = self.tx_app.disconnect()
        with self.assertRaises(ClientClosed):
            self.tx_app.delay(tasks.add, 1, 1)
        yield disconnected

    @pytest.mark.skipif(ON_ASYNCIO, reason="the loop is the reactor's, and runs on")
    @defer.inlineCallbacks
    def test_disconnecting_errbacks_what_still_runs_on_the_loop(self) -> Any:
        ended: list[str] = []

        async def wait() -> None:
            try:
                await asyncio.sleep(60)
            finally:
                await asyncio.sleep(0.1)
                ended.append("yes")

        async def slow_items() -> Any:
            yield 1
            await asyncio.sleep(60)

        d = self.tx_app.run(wait())
        mapped = self.tx_app.map(tasks.add.s(1), slow_items())
        yield self.tx_app.connect()
        yield self.tx_app.disconnect()
        yield self.assertFailure(d, ClientClosed)
        yield self.assertFailure(mapped, ClientClosed)
        self.assertEqual(ended, ["yes"])

    @pytest.mark.skipif(ON_ASYNCIO, reason="the loop is the reactor's, and runs on")
    @defer.inlineCallbacks
    def test_what_is_cancelled_or_asked_for_after_the_loops_end_fires(self) -> Any:
        called = self.tx_app.apply_async(tasks.add, (1, 1), countdown=60)
        d = self.tx_app.run(asyncio.sleep(60))
        yield called.sent()
        yield self.tx_app.disconnect()
        d.cancel()
        self.failureResultOf(d, defer.CancelledError)
        yield self.assertFailure(called, ClientClosed)
        yield self.loop_thread_ended()
        self.failureResultOf(called.refresh(), ClientClosed)

    @defer.inlineCallbacks
    def test_control_gives_deferreds(self) -> Any:
        replies = yield self.tx_app.control.ping(limit=1, timeout=10)
        self.assertEqual(next(iter(replies[0].values())), {"ok": "pong"})
        d = self.tx_app.apply_async(tasks.add, (1, 1), countdown=60)
        yield d.sent()
        yield self.tx_app.control.revoke(d.task_id)
        yield self.assertFailure(d, defer.CancelledError)

    @defer.inlineCallbacks
    def test_every_command_and_question_gives_a_deferred(self) -> Any:
        control = self.tx_app.control
        for name, method in inspect.getmembers(Control, inspect.iscoroutinefunction):
            if not name.startswith("_"):
                self.assertEqual(getattr(control, name).__doc__, method.__doc__)
        asked = control.inspect(limit=1, timeout=20)
        for name, _ in inspect.getmembers(Inspect, inspect.iscoroutinefunction):
            if not name.startswith("_"):
                self.assertTrue(callable(getattr(asked, name)))
        [clock] = (yield asked.clock()).values()
        self.assertGreater(clock["clock"], 0)
        replies = yield control.rate_limit("tests.tasks.echo", 1000, reply=True, limit=1)
        self.assertEqual([*replies[0].values()], [{"ok": "new rate limit set successfully"}])
        self.assertIsNone((yield control.heartbeat()))
        yield self.assertFailure(control.ping("a name"), InvalidOption)
        with self.assertRaises(TypeError):
            control.ping(1, 2, 3)
        with self.assertRaises(AttributeError):
            _ = control.no_such_command

    @defer.inlineCallbacks
    def test_callbacks_of_commands_run_in_the_reactors_thread(self) -> Any:
        heard: list[Any] = []

        def callback(reply: Any) -> None:
            heard.append((threading.current_thread(), reply))

        replies = yield self.tx_app.control.ping(limit=1, timeout=20, callback=callback)
        asked = self.tx_app.control.inspect(None, 20, callback, limit=1)
        answer = yield asked.ping()
        here = threading.current_thread()
        self.assertEqual(heard, [(here, replies[0]), (here, answer)])

    @defer.inlineCallbacks
    def test_events_call_back_in_the_reactors_thread_until_they_are_cancelled(self) -> Any:
        heard: list[tuple[threading.Thread, dict[str, Any]]] = []
        events = self.tx_app.events(
            lambda event: heard.append((threading.current_thread(), event)),
            types=["worker-heartbeat"],
        )
        yield events.started()
        while not heard:
            yield task.deferLater(reactor, 0.01)
        self.assertIs(heard[0][0], threading.current_thread())
        self.assertIn(heard[0][1]["hostname"], events.events.state.workers)
        events.cancel()
        self.failureResultOf(events, defer.CancelledError)
        while self.tx_app.client._sessions.current._subscriptions:
            yield task.deferLater(reactor, 0.01)

    @defer.inlineCallbacks
    def test_what_a_callback_of_events_raises_ends_them(self) -> Any:
        def refuse(event: dict[str, Any]) -> None:
            raise ValueError("no more")

        yield self.assertFailure(self.tx_app.events(refuse), ValueError)
        while self.tx_app.client._sessions.current._subscriptions:
            yield task.deferLater(reactor, 0.01)

    @defer.inlineCallbacks
    def test_a_callback_may_cancel_the_events(self) -> Any:
        heard: list[str] = []

        def once(event: dict[str, Any]) -> None:
            heard.append(event["type"])
            events.cancel()

        events = self.tx_app.events(once)
        yield self.assertFailure(events, defer.CancelledError)
        self.assertEqual(len(heard), 1)

    @defer.inlineCallbacks
    def test_disconnecting_ends_the_events(self) -> Any:
        events = self.tx_app.events(lambda _: None)
        yield events.started()
        yield self.tx_app.disconnect()
        yield self.assertFailure(events, ClientClosed)

    def test_bad_arguments_of_events_raise_at_the_call(self) -> None:
        with self.assertRaises(InvalidOption):
            self.tx_app.events(print, types="task-failed")

    @defer.inlineCallbacks
    def test_a_coroutine_runs_on_the_clients_loop(self) -> Any:
        async def calls() -> list[int]:
            client = self.tx_app.client
            return await asyncio.gather(*(client.delay(tasks.add, n, n) for n in range(10)))

        self.assertEqual((yield self.tx_app.run(calls())), [2 * n for n in range(10)])

    @defer.inlineCallbacks
    def test_a_running_coroutine_can_be_cancelled(self) -> Any:
        ended: list[str] = []

        async def wait() -> None:
            try:
                await asyncio.sleep(60)
            finally:
                ended.append("yes")

        d = self.tx_app.run(wait())
        yield self.tx_app.connect()
        d.cancel()
        self.failureResultOf(d, defer.CancelledError)
        while not ended:
            yield task.deferLater(reactor, 0.01)

    @defer.inlineCallbacks
    def test_an_asyncio_client_can_be_shared(self) -> Any:
        client = Client(self.app)
        tx_app = TwistedCelery(client)
        self.assertIs(tx_app.client, client)
        self.assertEqual((yield tx_app.delay(tasks.add, 1, 1)), 2)
        yield tx_app.disconnect()

    @defer.inlineCallbacks
    def test_results_by_id(self) -> Any:
        d = self.tx_app.delay(tasks.add, 1, 2)
        self.assertEqual((yield self.tx_app.result(d.task_id)), 3)
        yield d
        yield self.assertFailure(self.tx_app.result("unknown"), ResultUnavailable)

    @defer.inlineCallbacks
    def test_an_eager_task_is_done_when_the_call_returns(self) -> Any:
        celery = make_app("eager", "amqp://127.0.0.1:1//", task_always_eager=True)

        @celery.task(shared=False)
        def double(x: int) -> int:
            return 2 * x

        tx_app = TwistedCelery(celery)
        self.assertEqual((yield tx_app.delay(double, 4)), 8)
        yield tx_app.disconnect()


class TestDeferredTask(TwistedCase):
    @defer.inlineCallbacks
    def test_it_answers_for_its_handle(self) -> Any:
        d = self.tx_app.delay(tasks.add, 1, 2)
        self.assertEqual(len(d.task_id), 36)
        self.assertEqual((d.id, d.name, d.state), (d.task_id, "tests.tasks.add", "PENDING"))
        self.assertFalse(d.ready())
        self.assertIsNone(d.children)
        self.assertIsNone(d.parent)
        self.assertIn(d.task_id, repr(d))
        with self.assertRaises(AttributeError):
            _ = d.no_such_attribute
        self.assertIsNone((yield d.sent()))
        self.assertEqual((yield d.get(timeout=10)), 3)
        self.assertEqual((yield d), 3)
        self.assertEqual((d.state, d.ready(), d.successful()), ("SUCCESS", True, True))
        self.assertEqual(d.info, 3)
        self.assertEqual(d.children, [])
        self.assertEqual((yield d.refresh()).result, 3)

    @defer.inlineCallbacks
    def test_get_times_out_as_in_celery(self) -> Any:
        d = self.tx_app.delay(tasks.sleep, 0.4, "x")
        yield self.assertFailure(d.get(timeout=0.05), ResultTimeout)
        self.assertEqual((yield d), "x")

    @defer.inlineCallbacks
    def test_a_revoked_task_errbacks_cancelled_error(self) -> Any:
        d = self.tx_app.apply_async(tasks.add, (1, 1), countdown=60)
        yield d.sent()
        yield d.revoke()
        error = yield self.assertFailure(d, defer.CancelledError)
        self.assertIsInstance(error, TaskRevoked)
        self.assertIsInstance(error, errors.TaskRevoked)
        self.assertEqual(error.task_id, d.task_id)

    @defer.inlineCallbacks
    def test_forgetting_errbacks(self) -> Any:
        d = self.tx_app.apply_async(tasks.add, (1, 1), countdown=60)
        yield d.sent()
        yield d.forget()
        yield self.assertFailure(d, ResultUnavailable)

    @defer.inlineCallbacks
    def test_updates_come_in_the_reactors_thread(self) -> Any:
        seen: list[tuple[str, bool]] = []
        here = threading.get_ident()
        d = self.tx_app.delay(tasks.progress, 3)
        yield d.updates(lambda update: seen.append((update.state, threading.get_ident() == here)))
        states = ["STARTED", "PROGRESS", "PROGRESS", "PROGRESS", "SUCCESS"]
        self.assertEqual(seen, [(state, True) for state in states])
        self.assertEqual((yield d), 3)

    @defer.inlineCallbacks
    def test_what_a_callback_of_updates_raises_ends_them(self) -> Any:
        def fails(update: Any) -> None:
            raise LookupError(update.state)

        d = self.tx_app.delay(tasks.progress, 3)
        yield self.assertFailure(d.updates(fails), LookupError)
        self.assertEqual((yield d), 3)

    @defer.inlineCallbacks
    def test_updates_can_be_cancelled(self) -> Any:
        d = self.tx_app.delay(tasks.sleep, 0.3)
        updates = d.updates(lambda update: None)
        updates.cancel()
        yield self.assertFailure(updates, defer.CancelledError)
        yield d

    @defer.inlineCallbacks
    def test_collect_and_children_and_parent(self) -> Any:
        d = self.tx_app.apply_async(tasks.add, (1, 1), link=tasks.add.s(10))
        pairs = yield d.collect()
        self.assertEqual([value for _, value in pairs], [2, 12])
        self.assertIs(pairs[0][0], d)
        self.assertIsInstance(pairs[1][0], DeferredTask)
        (child,) = d.children
        self.assertEqual((yield child), 12)
        chained = self.tx_app.apply_async(tasks.add.s(1, 1) | tasks.add.s(1))
        self.assertEqual((yield chained), 3)
        self.assertEqual((yield chained.parent), 2)

    @defer.inlineCallbacks
    def test_iterdeps_gives_the_tree_of_calls(self) -> Any:
        d = self.tx_app.apply_async(tasks.add, (1, 1), link=tasks.add.s(10))
        (parent, root), (called_by, child) = yield d.iterdeps()
        self.assertEqual((parent, root, called_by), (None, d, d))
        self.assertEqual(self.successResultOf(child), 12)
        grouped = self.tx_app.apply_async(group([tasks.add.s(1, 1)]))
        (_, root), (_, member) = yield grouped.iterdeps(intermediate=True)
        self.assertIs(root, grouped)
        self.assertEqual((yield member), 2)
        self.assertEqual((yield grouped.collect(intermediate=True))[0], (grouped, [2]))

    @defer.inlineCallbacks
    def test_everything_that_waits_gives_a_deferred(self) -> Any:
        d = self.tx_app.apply_async(tasks.add, (1, 1))
        grouped = self.tx_app.apply_async(group([tasks.add.s(1, 1)]))
        yield defer.gatherResults([d, grouped])
        for each, kind in ((d, AsyncResult), (grouped, GroupResult)):
            for name, method in inspect.getmembers(kind, inspect.isroutine):
                waits = inspect.iscoroutinefunction(method) or inspect.isasyncgenfunction(method)
                if name.startswith("_") or not (waits or name == "iterdeps"):
                    continue
                given = getattr(each, name)()
                self.assertIsInstance(given, defer.Deferred, name)
                yield given.addErrback(lambda failure: failure.trap(ResultUnavailable))

    @defer.inlineCallbacks
    def test_members_of_a_large_group_may_be_asked_for_while_they_are_called(self) -> Any:
        def members() -> Any:
            for number in range(4 * AT_ONCE):
                if number == 2 * AT_ONCE:
                    time.sleep(0.1)  # the loop waits for their confirms, then
                yield tasks.add.s(number, 1)

        event_loop = self.tx_app._runner.event_loop()
        self.addCleanup(event_loop.loop.set_debug, event_loop.loop.get_debug())
        event_loop.call(event_loop.loop.set_debug, True)  # then it minds which thread it is
        d = self.tx_app.apply_async(group(members()))
        self.assertEqual(len(d.results), 4 * AT_ONCE)
        self.assertEqual((yield d), list(range(1, 4 * AT_ONCE + 1)))
        yield d.sent()

    @defer.inlineCallbacks
    def test_no_update_is_missed_that_comes_while_updates_are_asked_for(self) -> Any:
        d = self.tx_app.delay(tasks.progress, 3)
        yield d
        heard: list[str] = []
        ended = [d.updates(lambda update: heard.append(update.state)) for _ in range(50)]
        yield defer.gatherResults(ended)
        self.assertEqual(len(heard), 50 * 5)

    @defer.inlineCallbacks
    def test_what_a_closed_client_cannot_run_is_closed(self) -> Any:
        async def nothing() -> None: ...

        yield self.tx_app.disconnect()
        coroutine = nothing()
        with self.assertRaises(ClientClosed):
            self.tx_app.run(coroutine)
        self.assertEqual(inspect.getcoroutinestate(coroutine), inspect.CORO_CLOSED)
        with self.assertRaises(ClientClosed):
            self.tx_app.connect()

    @defer.inlineCallbacks
    def test_on_cancel_revokes(self) -> Any:
        d = self.tx_app.apply_async(tasks.add, (1, 1), countdown=60, on_cancel="revoke")
        yield d.sent()
        d.cancel()
        yield self.assertFailure(d, defer.CancelledError)
        while d.state != "REVOKED":
            yield task.deferLater(reactor, 0.01)


class TestOtherTasks(TwistedCase):
    """What stands for a task that was not called itself, but read off another one."""

    def logged_errors(self) -> list[Any]:
        gc.collect()
        return self.flushLoggedErrors()

    @defer.inlineCallbacks
    def test_errors_of_what_is_merely_read_are_not_logged(self) -> Any:
        chained = self.tx_app.apply_async(tasks.fail.si() | tasks.add.si(1, 1))
        grouped = self.tx_app.apply_async(group(tasks.fail.s(), tasks.fail.s()))
        before = [chained.parent.task_id, *(each.state for each in grouped.results)]
        yield self.assertFailure(chained, ValueError)
        yield self.assertFailure(grouped, ValueError)
        ended: list[str] = []
        yield grouped.as_completed(lambda member: ended.append(member.state))
        after = [chained.parent.task_id, *(each.state for each in grouped.results)]
        self.assertEqual(before[0], after[0])
        self.assertEqual(after[1:], ended)
        self.assertEqual(ended, ["FAILURE", "FAILURE"])
        self.assertEqual(self.logged_errors(), [])

    @defer.inlineCallbacks
    def test_a_child_whose_result_cannot_come_may_be_read(self) -> Any:
        d = self.tx_app.delay(tasks.call_from_task)
        yield d
        (child,) = d.children  # whose result goes to the worker
        self.assertEqual(len(child.task_id), 36)
        by_id = self.tx_app.result("of somebody else")
        yield self.assertFailure(child, ResultUnavailable)
        while not by_id.called:
            yield task.deferLater(reactor, 0.01)
        del child, by_id
        self.assertEqual(self.logged_errors(), [])

    @defer.inlineCallbacks
    def test_errors_of_what_is_used_are_logged_unless_they_are_handled(self) -> Any:
        d = self.tx_app.apply_async(group(tasks.fail.s(), tasks.fail.s()))
        early, handled = d.results
        early.addCallback(print)
        handled.addErrback(lambda failure: failure.trap(ValueError))
        yield self.assertFailure(d, ValueError)
        yield handled
        while not early.called:
            yield task.deferLater(reactor, 0.01)
        late = d.results[0]
        late.addCallback(print)
        del d, early, late
        logged: list[Any] = []
        while len(logged) < 2:  # the loop's thread may hold one of them for a moment
            yield task.deferLater(reactor, 0.01)
            logged += self.logged_errors()
        self.assertEqual([each.type for each in logged], [ValueError] * 2)

    @defer.inlineCallbacks
    def test_every_way_of_waiting_waits(self) -> Any:
        async def awaits(d: defer.Deferred[Any]) -> Any:
            return await d

        def follows(d: defer.Deferred[Any]) -> defer.Deferred[Any]:
            follower: defer.Deferred[Any] = defer.Deferred()
            d.chainDeferred(follower)
            return follower

        ways: list[Any] = [
            lambda d: d,
            lambda d: d.addCallback(lambda value: value),
            lambda d: d.addErrback(lambda failure: failure),
            lambda d: d.addBoth(lambda value: value),
            lambda d: d.addCallbacks(lambda value: value, lambda failure: failure),
            lambda d: d.addTimeout(20, reactor),
            lambda d: defer.succeed(None).addCallback(lambda _: d),
            lambda d: defer.succeed(None).addCallback(lambda _: d).addCallback(lambda value: value),
            lambda d: defer.gatherResults([d]).addCallback(lambda values: values[0]),
            lambda d: defer.DeferredList([d]).addCallback(lambda values: values[0][1]),
            lambda d: defer.maybeDeferred(lambda: d),
            lambda d: defer.race([d]).addCallback(lambda won: won[1]),
            lambda d: defer.ensureDeferred(awaits(d)),
            follows,
        ]
        if ON_ASYNCIO:
            ways.append(lambda d: defer.Deferred.fromFuture(d.asFuture(reactor._asyncioEventloop)))
        for way in ways:
            d = self.tx_app.apply_async(group([tasks.nap.s(0.05)]))
            (early,) = d.results
            self.assertEqual((yield way(early)), 0.05)
            (early,) = self.tx_app.apply_async(group([tasks.nap.s(0)])).results
            yield early.get()
            self.assertEqual((yield way(early)), 0)

    @defer.inlineCallbacks
    def test_what_has_ended_since_it_was_read_fires_at_once(self) -> Any:
        d = self.tx_app.apply_async(group(tasks.nap.s(0.1), tasks.nap.s(0.2)))
        first, second = d.results
        failing = self.tx_app.apply_async(tasks.fail.si() | tasks.add.si(1, 1))
        parent = failing.parent
        yield d
        yield self.assertFailure(failing, ValueError)
        self.assertEqual(self.successResultOf(first), 0.1)
        later = defer.succeed(None).addCallback(lambda _: second).addCallback(lambda n: n + 1)
        self.assertEqual(self.successResultOf(later), 1.2)
        self.failureResultOf(parent, ValueError)
        self.assertEqual(self.successResultOf(d.results[0]), 0.1)

    @defer.inlineCallbacks
    def test_what_is_cancelled_before_it_is_used_is_cancelled(self) -> Any:
        d = self.tx_app.apply_async(group([tasks.nap.s(0.1)]))
        (unused,), (used,) = d.results, d.results
        unused.cancel()
        used.cancel()
        self.failureResultOf(used, defer.CancelledError)
        self.assertEqual((yield d), [0.1])
        del unused
        self.assertEqual(self.logged_errors(), [])


class TestPitfalls(TwistedCase):
    """Each of the ways in which Deferreds and futures misunderstand each other."""

    @defer.inlineCallbacks
    def test_add_timeout_gives_twisteds_timeout_error(self) -> Any:
        d = self.tx_app.delay(tasks.sleep, 0.4, "x").addTimeout(0.05, reactor)
        yield self.assertFailure(d, defer.TimeoutError)
        self.assertEqual((yield d.get()), "x")

    @defer.inlineCallbacks
    def test_cancel_gives_twisteds_cancelled_error_at_once(self) -> Any:
        d = self.tx_app.delay(tasks.sleep, 0.2, "x")
        again = self.tx_app.client.result if ON_ASYNCIO else None
        d.cancel()
        error = self.failureResultOf(d, defer.CancelledError)
        self.assertIsInstance(error.value, Exception)
        self.assertEqual((yield d.get()), "x")
        self.assertTrue(again is None or callable(again))

    @defer.inlineCallbacks
    def test_cancelled_with_no_errback_logs_nothing(self) -> Any:
        d = self.tx_app.delay(tasks.sleep, 0.05)
        other = d.get()
        d.cancel()
        task_id = d.task_id
        del d
        gc.collect()
        yield other
        self.assertEqual(len(task_id), 36)
        self.assertEqual(self.flushLoggedErrors(), [])

    @defer.inlineCallbacks
    def test_cancelling_one_waiter_leaves_the_others(self) -> Any:
        d = self.tx_app.delay(tasks.sleep, 0.2, "x")
        one, other = d.get(), d.get()
        one.cancel()
        yield self.assertFailure(one, defer.CancelledError)
        self.assertEqual((yield other), "x")
        self.assertEqual((yield d), "x")

    @defer.inlineCallbacks
    def test_a_finished_result_fires_synchronously(self) -> Any:
        d = self.tx_app.delay(tasks.add, 1, 2)
        yield d
        self.assertEqual(self.successResultOf(self.tx_app.result(d.task_id)), 3)
        failed = self.tx_app.delay(tasks.fail, "ValueError")
        yield self.assertFailure(failed, ValueError)
        self.failureResultOf(self.tx_app.result(failed.task_id), ValueError)

    @defer.inlineCallbacks
    def test_coroutines_may_await_it(self) -> Any:
        async def twisted_style() -> Any:
            return await self.tx_app.delay(tasks.add, 1, 2)

        self.assertEqual((yield defer.Deferred.fromCoroutine(twisted_style())), 3)
        self.assertEqual((yield defer.ensureDeferred(twisted_style())), 3)

    @defer.inlineCallbacks
    def test_results_arrive_on_this_reactor(self) -> Any:
        here = threading.get_ident()
        where: list[int] = []
        d = self.tx_app.delay(tasks.add, 1, 2)
        d.addCallback(lambda value: where.append(threading.get_ident()) or value)
        self.assertEqual((yield d), 3)
        self.assertEqual(where, [here])

    @defer.inlineCallbacks
    def test_deferreds_are_joined_and_chained_as_usual(self) -> Any:
        ds = [self.tx_app.delay(tasks.add, n, n) for n in range(3)]
        self.assertEqual((yield defer.gatherResults(ds)), [0, 2, 4])
        ds = [self.tx_app.delay(tasks.add, 1, 1), self.tx_app.delay(tasks.fail, "ValueError")]
        (ok, value), (failed, failure) = yield defer.DeferredList(ds, consumeErrors=True)
        self.assertEqual((ok, value, failed), (True, 2, False))
        failure.trap(ValueError)
        self.assertEqual((yield defer.maybeDeferred(self.tx_app.delay, tasks.add, 2, 2)), 4)
        chained = self.tx_app.delay(tasks.add, 1, 1)
        chained.addCallback(lambda value: self.tx_app.delay(tasks.add, value, 10))
        self.assertEqual((yield chained), 12)

    @defer.inlineCallbacks
    def test_cancelling_a_gathering_cancels_all(self) -> Any:
        ds = [self.tx_app.delay(tasks.sleep, 0.1) for _ in range(3)]
        gathered = defer.gatherResults(ds, consumeErrors=True)
        gathered.cancel()
        yield self.assertFailure(gathered, defer.FirstError)
        yield self.tx_app.delay(tasks.add, 1, 1)


class TestCeleryClient(TwistedCase):
    def setUp(self) -> None:
        super().setUp()
        self.add = CeleryClient(tasks.add)

    def test_anything_but_a_task_is_a_type_error(self) -> None:
        for wrong in (print, 3, None, object()):
            with self.assertRaisesRegex(TypeError, "wraps a Celery task"):
                CeleryClient(wrong)
        self.assertIs(DeferrableTask, CeleryClient)

    def test_it_makes_no_app_finalize(self) -> None:
        celery = Celery("lazy", set_as_current=False, autofinalize=False)

        @CeleryClient
        @celery.task
        def lazy() -> None: ...

        self.assertFalse(celery.finalized)

    def test_it_is_the_task_in_all_else(self) -> None:
        self.assertEqual(self.add(1, 2), 3)
        self.assertEqual(self.add.name, "tests.tasks.add")
        self.assertIn("tests.tasks.add", repr(self.add))
        self.assertEqual(self.add.s(1, 2)(), 3)

    @defer.inlineCallbacks
    def test_calls_give_deferred_tasks(self) -> Any:
        self.assertIsInstance(self.add.delay(1, 2), DeferredTask)
        self.assertEqual((yield self.add.delay(1, y=2)), 3)
        self.assertEqual((yield self.add.apply_async((1, 2), priority=1)), 3)
        self.assertEqual((yield self.add.apply_async(kwargs={"x": 1, "y": 2})), 3)

    @defer.inlineCallbacks
    def test_signatures_give_deferred_tasks(self) -> Any:
        self.assertEqual((yield self.add.s(1).delay(2)), 3)
        self.assertEqual((yield self.add.si(1, 1).delay(2)), 2)
        self.assertEqual((yield self.add.subtask((1, 2)).apply_async()), 3)
        self.assertEqual((yield self.add.signature((1,), countdown=0).apply_async((2,))), 3)
        signature = self.add.s(1, 2).set(priority=3)
        self.assertIsInstance(signature, DeferredSignature)
        self.assertEqual(signature.options, {"priority": 3})
        self.assertIsInstance(signature.clone((5,)), DeferredSignature)
        self.assertIn("add(1, 2)", repr(signature))
        self.assertEqual((yield self.tx_app.apply_async(signature)), 3)

    @defer.inlineCallbacks
    def test_chains_give_deferred_tasks(self) -> Any:
        self.assertEqual((yield (self.add.s(1, 2) | self.add.s(3)).delay()), 6)
        self.assertEqual((yield (self.add.s(1, 2) | tasks.add.s(3)).delay()), 6)
        self.assertEqual((yield (tasks.add.s(1, 2) | self.add.s(3)).delay()), 6)
        chain = self.add.chain(self.add.s(1, 2), tasks.add.s(3), self.add.s(4))
        self.assertEqual((yield chain.apply_async()), 10)

    @defer.inlineCallbacks
    def test_links_may_be_given_as_they_come(self) -> Any:
        signature = self.add.s(1, 1)
        signature.link(self.add.s(10))
        d = signature.delay()
        self.assertEqual([value for _, value in (yield d.collect())], [2, 12])

    @defer.inlineCallbacks
    def test_tasks_of_an_app_share_a_client_until_it_is_closed(self) -> Any:
        other = CeleryClient(tasks.sleep)
        self.assertIs(other._using(), self.add._using())
        first = self.add._using()
        yield first.disconnect()
        self.assertIsNot(self.add._using(), first)
        self.assertEqual((yield self.add.delay(1, 1)), 2)
        own = CeleryClient(tasks.add, self.tx_app)
        self.assertIs(own._using(), self.tx_app)


class TestInstall(unittest.SynchronousTestCase):
    def test_a_second_reactor_is_refused(self) -> None:
        from twisted.internet.error import ReactorAlreadyInstalledError

        with self.assertRaises(ReactorAlreadyInstalledError):
            install()
