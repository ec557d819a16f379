"""A snapshot tells of every change in place, at any depth."""

from __future__ import annotations

import re
from collections import OrderedDict, UserDict
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from types import MappingProxyType
from typing import Any

import pytest
from kombu import Exchange, Queue, binding

from bridgetask.wire.snapshot import Snapshot


def a_queue() -> Queue:
    return Queue("q", Exchange("x", arguments={"a": [1]}), "key", queue_arguments={"b": {"c": 2}})


#: What to make, and what changes it.
CHANGES: dict[str, tuple[Callable[[], Any], Callable[[Any], object]]] = {
    "dict": (lambda: {"a": 1}, lambda made: made.update(a=2)),
    "dict grows": (lambda: {"a": 1}, lambda made: made.update(b=2)),
    "dict shrinks": (lambda: {"a": 1}, lambda made: made.clear()),
    "ordered dict": (lambda: OrderedDict(a=1), lambda made: made.update(a=2)),
    "list": (lambda: [1, 2], lambda made: made.append(3)),
    "order of a list": (lambda: [1, 2], lambda made: made.reverse()),
    "set": (lambda: {1, 2}, lambda made: made.add(3)),
    "within": (lambda: {"a": [{"b": {1}}]}, lambda made: made["a"][0]["b"].add(2)),
    "in a tuple": (lambda: ({"a": 1}, [2]), lambda made: made[1].append(3)),
    "in a set of tuples": (lambda: {("a", 1)}, lambda made: made.clear()),
    "replaced within": (lambda: {"a": [1]}, lambda made: made.update(a=[2])),
    "queue": (a_queue, lambda made: setattr(made, "max_length", 5)),
    "queue arguments": (a_queue, lambda made: made.queue_arguments["b"].update(c=3)),
    "bindings": (a_queue, lambda made: made.bindings.add(binding(Exchange("y")))),
    "exchange": (a_queue, lambda made: setattr(made.exchange, "no_declare", True)),
    "exchange arguments": (a_queue, lambda made: made.exchange.arguments["a"].append(2)),
    "a binding": (
        lambda: Queue("q", bindings=[binding(Exchange("x"), "key")]),
        lambda made: setattr(next(iter(made.bindings)), "routing_key", "other"),
    ),
    "in a list of queues": (lambda: [a_queue()], lambda made: setattr(made[0], "name", "r")),
    "in a dict of queues": (lambda: {"q": a_queue()}, lambda made: setattr(made["q"], "name", "r")),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_change_is_seen(what: str) -> None:
    make, change = CHANGES[what]
    made = make()
    snapshot = Snapshot("beside", made)
    assert snapshot.is_current()
    change(made)
    assert not snapshot.is_current()
    assert Snapshot(made).is_current()


@pytest.mark.parametrize("what", CHANGES)
def test_what_is_changed_back_is_current(what: str) -> None:
    make, _ = CHANGES[what]
    made = [make()]
    snapshot = Snapshot(made)
    kept = made.pop()
    assert not snapshot.is_current()
    made.append(kept)
    assert snapshot.is_current()


def test_what_is_replaced_by_its_equal_is_current_until_that_changes() -> None:
    made = {"a": {"b": 1}}
    snapshot = Snapshot(made)
    made["a"] = {"b": 1}
    assert snapshot.is_current()
    made["a"]["b"] = 2
    assert not snapshot.is_current()


@pytest.mark.parametrize(
    "other", [Exchange("x"), Exchange("x", no_declare=True), Exchange("x", passive=True)], ids=repr
)
def test_another_exchange_is_another_even_if_kombu_takes_them_for_equal(other: Exchange) -> None:
    queue = Queue("q", Exchange("x"))
    assert queue.exchange == other
    for made in (queue, [queue.exchange], {"x": queue.exchange}):
        snapshot = Snapshot(made)
        if isinstance(made, Queue):
            made.exchange = other
        else:
            made[0 if isinstance(made, list) else "x"] = other
        assert not snapshot.is_current()


@pytest.mark.parametrize(
    "constant",
    [
        *(1, 0.5, True, None, "text", b"bytes", timedelta(1), re.compile("x"), int, len),
        *(lambda: None, partial(len), (1, ("x",)), frozenset({1})),
    ],
    ids=lambda value: type(value).__name__,
)
def test_constants_are_what_they_were(constant: Any) -> None:
    assert Snapshot(constant, [constant], {"a": constant}).is_current()


@pytest.mark.parametrize(
    "value",
    [object(), UserDict(a=1), MappingProxyType({"a": 1}), bytearray(b"x"), iter([1])],
    ids=lambda value: type(value).__name__,
)
def test_what_may_be_changed_unseen_is_refused(value: Any) -> None:
    for made in (value, [value], {"a": value}, ({1}, (value,))):
        with pytest.raises(TypeError, match=type(value).__name__):
            Snapshot(made)


def test_what_holds_itself_is_looked_at_once() -> None:
    made: dict[str, Any] = {}
    made["self"] = [made]
    snapshot = Snapshot(made)
    made["more"] = 1
    assert not snapshot.is_current()


def test_what_can_not_be_compared_is_not_what_it_was() -> None:
    class Odd:
        def __eq__(self, other: object) -> bool:
            raise ValueError

        __hash__ = object.__hash__

    made: list[Any] = [1]
    snapshot = Snapshot(made)
    made[0] = Odd()
    assert not snapshot.is_current()
