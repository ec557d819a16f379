"""Results from Redis as Deferreds. test_reactors.py runs this on the default reactor, too."""

from __future__ import annotations

import gc
from typing import Any

import celery
import pytest
from celery import Celery
from celery.utils import uuid
from twisted.internet import defer

from bridgetask import NotSent, ResultUnavailable
from bridgetask.twisted_compat import CeleryClient, TwistedCelery

from .. import tasks
from .cases import TwistedCase


class TestRedis(TwistedCase):
    @pytest.fixture(autouse=True)
    def _app(self, redis_app: Celery) -> None:
        type(self).app = redis_app

    @defer.inlineCallbacks
    def test_results_of_other_clients_can_be_had_asked_about_and_forgotten(self) -> Any:
        called = self.tx_app.send_task("tests.tasks.add", (1, 2))
        self.assertEqual((yield called), 3)
        other = TwistedCelery(self.app)
        found = other.result(called.task_id)
        self.assertEqual((yield found), 3)
        self.assertTrue((yield found.exists()))
        yield found.forget()
        self.assertFalse((yield found.exists()))
        yield self.assertFailure(found.get(), ResultUnavailable)
        yield other.disconnect()

    @defer.inlineCallbacks
    def test_updates_of_a_task_that_another_client_sent_arrive(self) -> Any:
        other = TwistedCelery(self.app)
        called = other.send_task("tests.tasks.progress", (3,), countdown=0.5)
        updates: list[Any] = []
        yield self.tx_app.result(called.task_id).updates(updates.append)
        self.assertEqual([update.state for update in updates][-1], "SUCCESS")
        yield called
        yield other.disconnect()

    @defer.inlineCallbacks
    def test_a_redis_that_is_down_fails_the_call(self) -> Any:
        conf = {**self.app.conf.changes, "result_backend": "redis://127.0.0.1:1"}
        app = Celery("down", broker=self.app.conf.broker_url, set_as_current=False)
        app.conf.update(conf)
        tx_app = TwistedCelery(app)
        yield self.assertFailure(tx_app.send_task("t"), NotSent)
        yield tx_app.disconnect()

    @defer.inlineCallbacks
    def test_errors_of_a_groups_members_that_are_merely_read_are_not_logged(self) -> Any:
        called = self.tx_app.apply_async(celery.group(tasks.fail.s(), tasks.add.s(1, 1)))
        yield called.save()
        yield self.assertFailure(called, ValueError)
        other = TwistedCelery(self.app)
        failed, added = yield other.group_result(called.id)
        self.assertEqual((yield added), 2)
        yield self.assertFailure(failed.get(), ValueError)
        self.assertEqual(failed.state, "FAILURE")
        del failed
        gc.collect()
        self.assertEqual(self.flushLoggedErrors(), [])
        yield other.disconnect()

    @defer.inlineCallbacks
    def test_chords_are_made_of_signatures(self) -> Any:
        add, total = (CeleryClient(each, self.tx_app) for each in (tasks.add, tasks.total))
        header = [add.s(1, 1), add.s(2, 2)]
        self.assertEqual((yield self.tx_app.apply_async(celery.chord(header, total.s()))), 6)
        self.assertEqual((yield (add.group(*header) | total.s() | add.s(1)).delay()), 7)
        chord = (add.s(0, 1) | celery.group(add.s(1), add.s(2))) | total.s()
        self.assertEqual((yield chord.apply_async()), 5)

    @defer.inlineCallbacks
    def test_signatures_are_linked_to_errors(self) -> Any:
        fail, identity = (CeleryClient(each, self.tx_app) for each in (tasks.fail, tasks.identity))
        first, second = identity.si(1).set(task_id=uuid()), identity.si(2).set(task_id=uuid())
        yield self.assertFailure(fail.apply_async(link_error=first), ValueError)
        yield self.assertFailure(fail.s().on_error(second).delay(), ValueError)
        self.assertEqual((yield self.tx_app.result(first.id)), 1)
        self.assertEqual((yield self.tx_app.result(second.id)), 2)
