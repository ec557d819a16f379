"""Whatever is changed between two calls changes what both clients send, and in the same way."""

from __future__ import annotations

from functools import partial

import pytest
from kombu import Exchange, Queue

from ..changes import CALLS, CHANGES, base_settings, register_tasks
from .comparison import DEFAULT_QUEUE
from .conftest import MakeDifferential

#: Changes that make a difference in RabbitMQ. It keeps queues and exchanges as they were first
#: declared, and gets nothing of what runs here, nor of what goes to queues that only Celery names.
SHOWN = [
    name
    for name, change in CHANGES.items()
    if change.counts and not change.declares and name not in {"eager", "no changes"}
]
#: Calls that differ most.
SENT = ("by name", "by the task", "by route", "to a queue")


@pytest.mark.parametrize("what", SHOWN)
@pytest.mark.filterwarnings("ignore:.*task_always_eager", "ignore::DeprecationWarning")
def test_what_changes_counts_as_it_does_in_celery(
    differential: MakeDifferential, what: str
) -> None:
    settings = base_settings(DEFAULT_QUEUE)
    listed = settings["task_queues"][1]
    compared = differential(
        listed,
        Queue("other", Exchange("other"), "other"),
        bindings=[("amq.topic", "a.b")],
        register=register_tasks,
        **settings,
    )

    def compare(when: str) -> None:
        for name in SENT:
            call = partial(CALLS[name], app=compared.app)
            compared.compare(f"{name}, {when} {what}", call)

    compare("before")
    CHANGES[what].make(compared.app)
    compare("after")
