"""Apps to compare both clients with, and the count of what was compared."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from importlib.metadata import version
from typing import Any

import pytest
from celery import Celery
from celery.exceptions import CDeprecationWarning
from kombu import Queue

from ..fix_rabbitmq import configured
from .comparison import DEFAULT_QUEUE, TALLY, Differential, FrozenCelery

MakeDifferential = Callable[..., Differential]


def add_tasks(app: Celery) -> None:
    """Register the tasks to call, each with other options of its own."""

    @app.task(name="plain", shared=False)
    def plain(*args: Any, **kwargs: Any) -> None: ...

    @app.task(
        name="options",
        shared=False,
        serializer="yaml",
        time_limit=30,
        soft_time_limit=20,
        ignore_result=True,
        expires=300,
        compression="gzip",
        rate_limit="10/m",
        priority=4,
    )
    def options(*args: Any, **kwargs: Any) -> None: ...

    @app.task(name="routed", shared=False, queue="routed", delivery_mode=1, ignore_result=False)
    def routed(*args: Any, **kwargs: Any) -> None: ...

    @app.task(name="bound", shared=False, bind=True, shadow_name=lambda *_: "shadowed")
    def bound(self: Any, x: int = 0) -> None: ...

    @app.task(name="doubled", shared=False)
    def doubled(x: int) -> int:
        return 2 * x


@pytest.fixture
def differential(broker_url: str) -> Iterator[MakeDifferential]:
    """Return a function that makes a comparison of an app with the settings it is given.

    One at a time: it takes all that is in its queues.
    """
    open_ones = ExitStack()

    def make(
        *queues: Queue | str,
        default_queue: Queue | str | None = DEFAULT_QUEUE,
        bindings: Iterable[tuple[str, str]] = (),
        finalize: bool = True,
        register: Callable[[Celery], None] = add_tasks,
        **conf: Any,
    ) -> Differential:
        celery = FrozenCelery(
            "differential", broker=broker_url, backend="rpc://", set_as_current=False
        )
        celery.conf.update(
            {
                "task_default_queue": DEFAULT_QUEUE,
                # So that a message is there when Celery's call returns.
                "broker_transport_options": {"confirm_publish": True},
            }
            | conf
        )
        register(configured(celery))
        if finalize:
            with warnings.catch_warnings():  # options that route are deprecated, and taken
                warnings.simplefilter("ignore", CDeprecationWarning)
                celery.finalize()
        made = Differential(
            broker_url, celery, filter(None, [default_queue, *queues]), bindings, about=repr(conf)
        )
        open_ones.callback(made.close)
        return made

    with open_ones:
        yield make


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say how much was compared."""
    if TALLY.combinations:
        terminalreporter.section("differential")
        terminalreporter.line(
            f"{len(TALLY.combinations)} different calls, {TALLY.messages} messages: "
            f"what bridgetask sent is what Celery {version('celery')}'s own client sent, "
            f"{TALLY.templates} kinds of them by templates. "
            f"{len(TALLY.refused)} calls refused by both, {len(TALLY.unroutable)} reached no queue."
        )
