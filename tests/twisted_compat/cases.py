"""The base of the tests of the Twisted layer."""

from __future__ import annotations

import threading
from typing import Any, ClassVar

import pytest
from celery import Celery
from twisted.internet import asyncioreactor, defer, reactor, task
from twisted.trial import unittest

from bridgetask.twisted_compat import CeleryClient, TwistedCelery

ON_ASYNCIO = isinstance(reactor, asyncioreactor.AsyncioSelectorReactor)


class TwistedCase(unittest.TestCase):
    """A trial case with a client that is disconnected at its end."""

    timeout = 30
    app: ClassVar[Celery]

    @pytest.fixture(autouse=True)
    def _app(self, app: Celery) -> None:
        type(self).app = app

    def setUp(self) -> None:
        self.tx_app = TwistedCelery(self.app)

    @defer.inlineCallbacks
    def tearDown(self) -> Any:
        yield self.tx_app.disconnect()
        yield drop_shared_clients()
        yield self.loop_thread_ended()

    @defer.inlineCallbacks
    def loop_thread_ended(self) -> Any:
        while any(each.name == "bridgetask loop" for each in threading.enumerate()):
            yield task.deferLater(reactor, 0.01)


@defer.inlineCallbacks
def drop_shared_clients() -> Any:
    for shared in list(CeleryClient._shared.values()):
        yield shared.disconnect()
    CeleryClient._shared.clear()
