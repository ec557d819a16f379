"""Clients that run tasks in this process, and an app for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeAlias

import pytest
from celery import Celery

from bridgetask.testing import InMemoryClient

from ..blocking import locks_allowed
from ..fix_rabbitmq import make_app
from .gate import Gate

MakeClient: TypeAlias = Callable[..., InMemoryClient]


@pytest.fixture(autouse=True)
def shared_locks() -> Iterator[None]:
    with locks_allowed():
        yield


@pytest.fixture(
    params=[False, pytest.param(True, marks=pytest.mark.blocks)], ids=["thread", "inline"]
)
def in_memory(request: pytest.FixtureRequest) -> MakeClient:
    """Return what makes a client, whose tasks run in a thread or on the event loop."""
    return partial(InMemoryClient, inline=request.param)


@pytest.fixture
def celery() -> Celery:
    """An app that connects nowhere, not even where it is used by itself."""
    app = make_app("testing", "memory://", "cache+memory://")

    @app.task(shared=False, name="add")
    def add(x: int, y: int) -> int:
        return x + y

    return app


@pytest.fixture
def gate() -> Iterator[Gate]:
    made = Gate()
    yield made
    made.open()
