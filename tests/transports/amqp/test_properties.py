"""Properties are encoded to py-amqp's bytes, whether or not a template has some in common."""

from __future__ import annotations

import gc
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import amqp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridgetask import InvalidOption
from bridgetask.transports.amqp.properties import PropertiesEncoder, encode_properties
from bridgetask.wire.message import OutgoingMessage, TemplateId

from ...fix_rabbitmq import make_app
from ...recorders import recorder_for

text = st.text(max_size=40)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.decimals(-10_000, 10_000, places=3)
    | st.datetimes(datetime(1971, 1, 1), datetime(2100, 1, 1)),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(text, inner, max_size=3)
    ),
    max_leaves=8,
)
properties = st.fixed_dictionaries(
    {},
    optional={
        "content_type": text,
        "content_encoding": text,
        "headers": st.dictionaries(text, values, max_size=8),
        "delivery_mode": st.integers(1, 2),
        "priority": st.integers(0, 255),
        "correlation_id": text | st.uuids().map(str),
        "reply_to": text,
        "expiration": st.integers(0, 10**9).map(str),
        "message_id": text,
        "timestamp": st.integers(0, 2**40),
        "type": text,
        "user_id": text,
        "app_id": text,
        "cluster_id": text,
    },
)


def by_py_amqp(given_properties: dict[str, Any]) -> bytes:
    renamed = dict(given_properties)
    if "headers" in renamed:
        renamed["application_headers"] = renamed.pop("headers")
    encoded: bytes = amqp.Message(**renamed)._serialize_properties()
    return encoded


@given(properties)
def test_properties_are_encoded_as_celerys_client_does(given_properties: dict[str, Any]) -> None:
    assert encode_properties(given_properties) == by_py_amqp(given_properties)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"countdown": 5, "expires": 60.5, "priority": 9},
        {"headers": {"f": 0.1, "l": 2**40, "d": Decimal("1.5"), "b": b"x", "t": (1, "a"), "": {}}},
        {"headers": {"when": datetime(2026, 1, 1, tzinfo=UTC), "one": 1, "yes": True, "no": None}},
        {"time_limit": 5, "soft_time_limit": 3.5, "ignore_result": True, "reply_to": "umläut"},
        {"compression": "gzip", "serializer": "pickle", "shadow": "s", "group_id": "g"},
    ],
)
def test_the_messages_of_calls_are_encoded_as_celerys_client_does(options: dict[str, Any]) -> None:
    recorder = recorder_for(make_app("frames", "amqp://127.0.0.1:1//"), "replies")
    (message,) = recorder.send_task("name", (1, "é"), {"k": [1]}, options).messages
    assert encode_properties(message.properties) == by_py_amqp(message.properties)


@pytest.mark.parametrize(
    "bad",
    [
        {"headers": {"x": object()}},
        {"headers": {"x": {"y": object()}}},
        {"headers": {"x": [object()]}},
        {"headers": {"x": 2**70}},
        {"headers": {"k" * 256: None}},
        {"headers": {1: None}},
        {"correlation_id": "x" * 256},
        {"correlation_id": 5},
        {"priority": 300},
        {"priority": "high"},
        {"timestamp": -1},
    ],
)
def test_what_amqp_has_no_type_for_is_an_invalid_option(bad: dict[str, Any]) -> None:
    with pytest.raises(InvalidOption, match="headers: can't be encoded"):
        encode_properties(bad)


def message(
    template: TemplateId | None, correlation_id: str = "id", **headers: Any
) -> OutgoingMessage:
    given_properties = {
        "content_type": "application/json",
        "headers": headers,
        "delivery_mode": 2,
        "priority": 0,
        "correlation_id": correlation_id,
        "reply_to": "replies",
    }
    return OutgoingMessage("", "q", b"", given_properties, template=template)


@given(
    st.dictionaries(text, values, max_size=6),
    st.sets(text, max_size=3),
    st.lists(st.tuples(text, st.lists(st.none() | text | values, max_size=3)), min_size=1),
)
def test_messages_of_a_template_are_encoded_as_celerys_client_does(
    headers: dict[str, Any], varying: set[str], messages: list[tuple[str, list[Any]]]
) -> None:
    encoder = PropertiesEncoder()
    template = TemplateId(frozenset(varying))
    for correlation_id, their_values in messages:
        ours = {**headers, **dict(zip(sorted(varying), their_values, strict=False))}
        for name in varying:
            ours.setdefault(name, None)
        each = message(template, correlation_id, **{})
        each.properties["headers"] = dict(sorted(ours.items()))
        assert encoder.encode(each) == by_py_amqp(each.properties)


@pytest.mark.parametrize(
    "correlation_id", ["", "\0", "\2", "application/json", "replies", "x" * 255]
)
def test_an_id_is_put_where_it_belongs_whatever_it_is(correlation_id: str) -> None:
    encoder = PropertiesEncoder()
    template = TemplateId(frozenset({"id"}))
    for each in (correlation_id, "another", correlation_id):
        made = message(template, each, id=each, task="t")
        assert encoder.encode(made) == by_py_amqp(made.properties)


def test_the_messages_that_templates_make_are_encoded_as_celerys_client_does() -> None:
    app = make_app("properties", "amqp://127.0.0.1:1//")
    recorder = recorder_for(app, "replies", clock=lambda: 0.0)
    encoder = PropertiesEncoder()
    for options in ({}, {"compression": "gzip", "priority": 3, "serializer": "pickle"}):
        made = [
            recorder.send_task("name", (number, "é"), {"k": number}, {**options, **ids}).messages[0]
            for number in range(4)
            for ids in ({}, {"group_id": "g", "group_index": number}, {"root_id": "r"})
        ]
        assert len({each.template for each in made}) == 2  # by Celery's code, and by a template
        for each in made:
            assert encoder.encode(each) == by_py_amqp(each.properties)
    assert len(encoder._known) == 2


def test_a_header_that_somebody_adds_to_a_message_is_sent() -> None:
    encoder = PropertiesEncoder()
    template = TemplateId(frozenset({"id"}))
    encoder.encode(message(template, id="1", task="t"))
    made = message(template, id="2", task="t", added="by somebody")
    assert encoder.encode(made) == by_py_amqp(made.properties)


def test_properties_that_are_not_as_a_template_says_are_encoded_in_full() -> None:
    encoder = PropertiesEncoder()
    for lacking in ("headers", "correlation_id"):
        template = TemplateId(frozenset({"id"}))
        for number in range(3):
            made = message(template, str(number), id=str(number))
            del made.properties[lacking]
            assert encoder.encode(made) == by_py_amqp(made.properties)


@pytest.mark.parametrize(
    "bad", [{"group_index": object()}, {"group_index": 2**70}, {"group_index": [object()]}]
)
def test_what_amqp_has_no_type_for_is_an_invalid_option_in_a_template_as_well(
    bad: dict[str, Any],
) -> None:
    encoder = PropertiesEncoder()
    template = TemplateId(frozenset({"group_index"}))
    for _ in range(2):
        with pytest.raises(InvalidOption, match="headers: can't be encoded"):
            encoder.encode(message(template, **bad))
        encoder.encode(message(template, group_index=1))
    with pytest.raises(InvalidOption, match="headers: can't be encoded"):
        encoder.encode(message(template, "x" * 256, group_index=1))


def test_nothing_is_left_of_a_template_that_is_gone() -> None:
    encoder = PropertiesEncoder()
    for number in range(100):
        encoder.encode(message(TemplateId(frozenset({"id"})), id=str(number)))
    gc.collect()
    assert len(encoder._known) == 0
