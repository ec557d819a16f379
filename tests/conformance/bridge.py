"""bridgetask for blocking callers: its clients, on one event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable
from typing import Any

from celery import Celery
from celery.contrib.testing.worker import TestWorkController

from bridgetask import Client

__all__ = ["Bridge"]


class Bridge:
    """One client for each app, all on one background loop."""

    def __init__(self) -> None:
        self._process = os.getpid()
        self._workers: set[int] = set()
        self._clients: dict[Celery, Client] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def watch_workers(self) -> None:
        """Learn which threads run an embedded worker."""
        start = TestWorkController.start

        def noted(worker: Any) -> Any:
            self._workers.add(threading.get_ident())
            return start(worker)

        TestWorkController.start = noted

    @property
    def on_client_side(self) -> bool:
        """Whether whoever runs is a client: neither a worker, nor one of its processes."""
        return os.getpid() == self._process and threading.get_ident() not in self._workers

    @property
    def on_loop(self) -> bool:
        """Whether it is the loop's own thread that runs."""
        return threading.current_thread() is self._thread

    def call(self, app: Celery, use: Callable[[Client], Any]) -> Any:
        """Return what ``use`` returns, called on the loop: a handle."""

        async def called(client: Client) -> Any:
            return use(client)

        return self.wait(app, called)

    def wait(self, app: Celery, use: Callable[[Client], Awaitable[Any]]) -> Any:
        """Return what awaiting gives that ``use`` returns, on the loop."""
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(
                target=self._loop.run_forever, name="bridgetask conformance", daemon=True
            )
            self._thread.start()
        future = asyncio.run_coroutine_threadsafe(self._use(app, use), self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    async def _use(self, app: Celery, use: Callable[[Client], Awaitable[Any]]) -> Any:
        client = self._clients.get(app)
        if client is None:
            client = self._clients[app] = Client(app)
        return await use(client)

    def close_clients(self) -> None:
        """Close all clients. A later call makes new ones."""
        for app in list(self._clients):
            self.wait(app, Client.close)
        self._clients.clear()

    def close(self) -> None:
        """Close all clients, and end the thread."""
        self.close_clients()
        if self._loop is not None and self._thread is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()
            self._loop = self._thread = None
