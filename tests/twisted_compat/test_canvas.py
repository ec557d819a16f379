"""Groups and maps as Deferreds. test_reactors.py runs this on the default reactor, too."""

from __future__ import annotations

from typing import Any

from celery import group
from twisted.internet import defer

from bridgetask import InvalidOption
from bridgetask.twisted_compat import CeleryClient, DeferredTask

from .. import tasks
from .cases import TwistedCase


class TestGroups(TwistedCase):
    @defer.inlineCallbacks
    def test_a_group_fires_with_the_list_of_its_values(self) -> Any:
        called = self.tx_app.apply_async(group(tasks.add.s(i, i) for i in range(5)))
        self.assertEqual((yield called), [0, 2, 4, 6, 8])
        self.assertEqual([member.state for member in called.results], ["SUCCESS"] * 5)
        self.assertEqual(called.completed_count(), 5)
        self.assertEqual((yield called.get()), [0, 2, 4, 6, 8])
        self.assertEqual((yield called.results[1]), 2)

    @defer.inlineCallbacks
    def test_a_large_group_is_called_piece_by_piece(self) -> Any:
        called = self.tx_app.apply_async(group(tasks.add.s(i, 1) for i in range(400)))
        yield called.sent()
        self.assertEqual((yield called), list(range(1, 401)))

    @defer.inlineCallbacks
    def test_asking_for_the_members_of_a_large_group_calls_what_is_left(self) -> Any:
        called = self.tx_app.apply_async(group(tasks.add.s(i, 1) for i in range(400)))
        self.assertEqual(len(called.results), 400)
        self.assertEqual((yield called), list(range(1, 401)))

    @defer.inlineCallbacks
    def test_members_come_as_they_are_completed(self) -> Any:
        slow_and_fast = group(tasks.nap.s(0.6), tasks.nap.s(0.0))
        called = self.tx_app.apply_async(slow_and_fast)
        completed: list[Any] = []
        yield called.as_completed(completed.append)
        self.assertEqual([type(each) for each in completed], [DeferredTask] * 2)
        self.assertEqual([each.info for each in completed], [0.0, 0.6])

    @defer.inlineCallbacks
    def test_what_only_groups_or_only_tasks_have_is_refused_elsewhere(self) -> Any:
        called, single = self.tx_app.apply_async(group()), self.tx_app.delay(tasks.add, 1, 1)
        with self.assertRaisesRegex(TypeError, "a group reports no states"):
            called.updates(print)
        with self.assertRaisesRegex(TypeError, "only a group has members"):
            single.as_completed(print)
        with self.assertRaises(AttributeError):
            _ = single.results
        yield defer.gatherResults([called, single])

    @defer.inlineCallbacks
    def test_a_task_is_mapped_over_items(self) -> Any:
        self.assertEqual((yield self.tx_app.map(tasks.identity, range(5), limit=2)), list(range(5)))
        values: list[Any] = []
        left = yield self.tx_app.map(CeleryClient(tasks.identity), range(3), values.append)
        self.assertEqual((left, values), ([], [0, 1, 2]))
        yield self.assertFailure(self.tx_app.map(tasks.identity, [1], limit=0), InvalidOption)


class TestCeleryClientCanvas(TwistedCase):
    @defer.inlineCallbacks
    def test_signatures_of_many_calls_give_deferred_tasks(self) -> Any:
        add = CeleryClient(tasks.add)
        self.assertEqual((yield add.group(add.s(1, 1), add.s(2, 2)).delay()), [2, 4])
        self.assertEqual((yield add.starmap([(1, 1), (2, 2)]).delay()), [2, 4])
        self.assertEqual((yield add.chunks([(1, 1), (2, 2)], 1).apply_async()), [[2], [4]])
        identity = CeleryClient(tasks.identity)
        self.assertEqual((yield identity.map([1, 2]).delay()), [1, 2])
