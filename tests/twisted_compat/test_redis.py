"""Results from Redis as Deferreds. test_reactors.py runs this on the default reactor, too."""

from __future__ import annotations

from typing import Any

import pytest
from celery import Celery
from twisted.internet import defer

from bridgetask import NotSent, ResultUnavailable
from bridgetask.twisted_compat import TwistedCelery

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
