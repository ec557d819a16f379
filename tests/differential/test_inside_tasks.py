"""Calls that a task makes while a worker runs it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from celery import Celery
from celery.worker.request import Request
from kombu.message import Message

from .comparison import DEFAULT_QUEUE, TIMES, Options
from .conftest import MakeDifferential

#: What the parent's own message says of it: its options, and its priority.
PARENTS: dict[str, tuple[Options, int | None]] = {
    "root": ({}, None),
    "child": ({"root_id": "the root", "parent_id": "the grandparent"}, 6),
    "member": ({"group_id": "the group", "group_index": 3, "retries": 1}, 0),
    "stamped": ({"stamped_headers": ["on"], "on": "deck", "time_limit": 9, "shadow": "x"}, 255),
}
OPTIONS: list[Options] = [
    {},
    {"root_id": "another root"},
    {"parent_id": "another parent"},
    {"root_id": "another root", "parent_id": "another parent"},
    {"priority": 4},
    {"priority": None},
    {"add_to_parent": False},
    {"group_id": "its group", "group_index": 1},
    {"link": {"task": "linked", "args": (), "kwargs": {}, "options": {}, "immutable": False}},
    {"countdown": 10, "expires": 20, "ignore_result": True},
]


@pytest.mark.parametrize("protocol", [1, 2])
@pytest.mark.parametrize("inherits", [True, False])
@pytest.mark.parametrize("parent", PARENTS)
def test_calls_inside_a_task_send_the_same(
    differential: MakeDifferential, parent: str, inherits: bool, protocol: int
) -> None:
    """Root and parent ids, and the priority, come from the task that the worker runs."""
    compared = differential("routed", task_inherit_parent_priority=inherits, task_protocol=protocol)
    app = compared.app
    options, priority = PARENTS[parent]

    def body(task: Any) -> None:
        for each in OPTIONS:
            for called in ("plain", "unregistered", app.tasks["options"], app.tasks["plain"].s(1)):
                assert compared.compare_task(called, f"in {PARENTS[parent]}", **each)
        compared.compare(f"chain in {parent}", lambda client: client.apply_async(chain(app)))

    run_in_worker(app, body, options, priority)


def chain(app: Celery) -> Any:
    return app.tasks["plain"].s(1) | app.tasks["options"].s() | app.tasks["plain"].si()


def test_calls_become_children_of_the_task(differential: MakeDifferential) -> None:
    """Workers report a task's children with its result."""
    compared = differential()
    children: list[Any] = []

    def body(task: Any) -> None:
        (message,) = compared.compare_task("plain")[DEFAULT_QUEUE]
        assert message.headers["parent_id"] == message.headers["root_id"] == b"the parent's id"
        compared.compare_task(compared.app.tasks["plain"])
        compared.compare_task("plain", add_to_parent=False)
        children.extend(child.as_tuple() for child in task.request.children)

    run_in_worker(compared.app, body, {}, None)
    assert children == [(("the task's id", None), None)] * 2 * (1 + TIMES)


def run_in_worker(
    app: Celery, body: Callable[[Any], None], options: Options, priority: int | None
) -> None:
    """Run a task as a worker does that has got its message."""
    failed: list[BaseException] = []

    @app.task(name="parent", bind=True, ignore_result=True, shared=False)
    def parent(self: Any) -> None:
        try:
            body(self)
        except BaseException as error:
            failed.append(error)
            raise

    sent = app.amqp.as_task_v2("the parent's id", "parent", **options)
    message = Message(
        properties={**sent.properties, "priority": priority},
        delivery_info={"exchange": "", "routing_key": "parents"},
    )
    Request(message, app=app, headers=sent.headers, body=sent.body, decoded=True).execute()
    if failed:
        raise failed[0]
