"""Groups and maps as Deferreds. test_reactors.py runs this on the default reactor, too."""

from __future__ import annotations

from typing import Any

import celery
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
    def setUp(self) -> None:
        super().setUp()
        self.add = CeleryClient(tasks.add)

    def test_a_signature_is_what_celerys_is(self) -> None:
        signature = self.add.s(1, 1)
        self.assertEqual(signature["task"], "tests.tasks.add")
        self.assertEqual(signature, tasks.add.s(1, 1))
        self.assertEqual(dict(signature), dict(tasks.add.s(1, 1)))
        self.assertEqual(repr(signature), repr(tasks.add.s(1, 1)))

    @defer.inlineCallbacks
    def test_signatures_can_be_linked_by_every_option(self) -> Any:
        add, name = self.add, self.add.name
        for d in (
            add.apply_async((1, 1), link=add.s(5)),
            add.apply_async((1, 1), link=[add.s(5)]),
            add.s(1, 1).set(link=add.s(5)).delay(),
            add.s(1, 1).apply_async(link=add.s(5)),
            self.tx_app.send_task(name, (1, 1), link=add.s(5)),
            self.tx_app.apply_async(tasks.add, (1, 1), link=[add.s(5), add.s(5)]),
        ):
            (_, value), *_, (_, linked) = yield d.collect()
            self.assertEqual((value, linked), (2, 7))

    @defer.inlineCallbacks
    def test_celerys_groups_and_chains_are_made_of_signatures(self) -> Any:
        add, call = self.add, self.tx_app.apply_async
        self.assertEqual((yield call(celery.group(add.s(1, 1), add.s(2, 2)))), [2, 4])
        self.assertEqual((yield call(celery.group([add.s(1, 1), tasks.add.s(2, 2)]))), [2, 4])
        self.assertEqual((yield call(celery.group(add.s(n, n) for n in range(3)))), [0, 2, 4])
        self.assertEqual((yield call(celery.chain(add.s(1, 1), add.s(2), tasks.add.s(3)))), 7)
        chained = add.s(1, 1) | celery.group(add.s(1), add.s(2) | add.s(3))
        self.assertEqual((yield chained.delay()), [3, 7])
        self.assertEqual((yield chained.clone().delay()), [3, 7])

    def test_a_group_of_celerys_is_called_by_celery_itself(self) -> None:
        called = celery.group(self.add.s(1, 1), self.add.s(2, 2)).delay()
        self.assertIsInstance(called, celery.result.GroupResult)

    @defer.inlineCallbacks
    def test_calling_a_canvas_gives_a_deferred_task(self) -> Any:
        add = self.add
        self.assertEqual((yield (add.s(1, 1) | add.s(2))()), 4)
        self.assertEqual((yield add.group(add.s(1, 1), add.s(2, 2))()), [2, 4])
        self.assertEqual((yield add.chunks([(1, 1), (2, 2)], 1)()), [[2], [4]])
        self.assertEqual((yield add.chunks([(1, 1), (2, 2)], 1).group().delay()), [[2], [4]])

    @defer.inlineCallbacks
    def test_a_wrapped_task_may_be_linked_as_the_task(self) -> Any:
        signature = self.add.s(1, 1)
        signature.link(self.add)
        signature.link_error(self.add)
        self.assertEqual(signature.options, {"link": [tasks.add], "link_error": [tasks.add]})
        self.assertEqual((yield self.tx_app.apply_async(self.add, (1, 1))), 2)

    @defer.inlineCallbacks
    def test_signatures_of_many_calls_give_deferred_tasks(self) -> Any:
        add = CeleryClient(tasks.add)
        self.assertEqual((yield add.group(add.s(1, 1), add.s(2, 2)).delay()), [2, 4])
        self.assertEqual((yield add.starmap([(1, 1), (2, 2)]).delay()), [2, 4])
        self.assertEqual((yield add.chunks([(1, 1), (2, 2)], 1).apply_async()), [[2], [4]])
        identity = CeleryClient(tasks.identity)
        self.assertEqual((yield identity.map([1, 2]).delay()), [1, 2])
