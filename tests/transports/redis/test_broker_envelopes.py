"""Envelopes made from what is kept of a template, against those that kombu's channel makes."""

from __future__ import annotations

import logging
from typing import Any
from unittest.mock import patch

import pytest
from celery import Celery
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kombu import Queue
from kombu.utils.json import loads

from bridgetask.transports.plugs import Plugs
from bridgetask.transports.redis import envelopes
from bridgetask.transports.redis.channel import KombuCommands
from bridgetask.transports.redis.envelopes import Envelopes
from bridgetask.transports.redis.resp import RepliesDecoder, encode
from bridgetask.wire.message import OutgoingMessage
from bridgetask.wire.producer import declarations_of
from bridgetask.wire.recorder import Recorder


def app_with(**options: Any) -> Celery:
    app = Celery("envelopes", broker="redis://127.0.0.1:1/3", set_as_current=False)
    app.conf.broker_transport_options = options
    return app


class Made:
    """Messages of one app, and both ways to write them."""

    def __init__(self, **options: Any) -> None:
        app = app_with(**options)
        self.recorder: Recorder = Plugs.of(app).codec("replies").recorder
        self.kombu = KombuCommands(app.connection_for_write())
        self.envelopes = Envelopes(self.kombu.publish)

    def message(self, *args: Any, **options: Any) -> OutgoingMessage:
        """Return a message that a template has made, if one can."""
        for _ in range(2):
            self.recorder.send_task("t", args, {}, dict(options))
        [message] = self.recorder.send_task("t", args, {}, dict(options)).messages
        return message

    def both(self, message: OutgoingMessage) -> tuple[Any, Any]:
        """Return what is written by what is kept, and by kombu, but for the delivery tags."""
        kept = self.envelopes.encode(message)
        assert kept is not None
        return told(kept), told(encode(self.kombu.publish(message)))


def told(command: bytes) -> tuple[Any, ...]:
    [[verb, key, envelope]] = RepliesDecoder().feed(command)
    tag = loads(envelope)["properties"]["delivery_tag"]
    assert len(tag) == 36
    return verb, key, envelope.replace(tag.encode(), b"")


MADE = Made()
TEXTS = st.text() | st.text(st.sampled_from('"\\\n\x00é€\U0001f600'))


@settings(suppress_health_check=list(HealthCheck), deadline=None)
@given(st.lists(TEXTS | st.integers() | st.none(), max_size=3), TEXTS, st.integers(0, 2**40))
def test_the_same_is_written_as_by_kombu(args: list[Any], group: str, index: int) -> None:
    for options in ({}, {"group_id": group, "group_index": index}, {"root_id": group}):
        kept, by_kombu = MADE.both(MADE.message(*args, **options))
        assert kept == by_kombu


def test_what_is_kept_is_kept_for_each_kind_of_call() -> None:
    made = Made(global_keyprefix="p_", priority_steps=[0, 5], sep=":")
    for options in ({"priority": 7}, {"queue": "other"}, {"compression": "gzip"}, {"priority": 1}):
        kept, by_kombu = made.both(made.message(1, **options))
        assert kept == by_kombu
    assert len(made.envelopes._known) == 4


def test_a_message_by_celerys_own_code_is_left_to_kombu() -> None:
    message = MADE.message(1)
    message.template = None
    assert MADE.envelopes.encode(message) is None


@pytest.mark.parametrize("options", [{"body_encoding": None}, {"body_encoding": "utf-8"}])
def test_bodies_that_are_not_encoded_are_left_to_kombu(options: dict[str, Any]) -> None:
    made = Made(**options)
    assert made.envelopes.encode(made.message(1)) is None


def test_what_needs_more_than_one_command_is_left_to_kombu() -> None:
    made = Made()
    if not hasattr(made.kombu._channel, "_get_queue_expire"):
        pytest.skip("kombu 5.5 has no queues that expire")
    message = made.message(1)
    made.kombu.declare(declarations_of(Queue("celery", expires=10)))
    assert len(made.kombu.publish(message)) > 1
    assert made.envelopes.encode(message) is None


def test_words_that_change_are_noticed(caplog: pytest.LogCaptureFixture) -> None:
    made = Made()
    with patch.object(envelopes, "_COMPARED_EVERY", 3), caplog.at_level(logging.WARNING):
        for _ in range(8):
            assert made.envelopes.encode(made.message(1)) is not None
        assert not caplog.records
        made.kombu._channel.sep = made.kombu._channel.keyprefix_queue = ""
        made.kombu._channel.global_keyprefix = "other"
        made.kombu._channel.body_encoding = None
        written = [made.envelopes.encode(made.message(1)) for _ in range(8)]
    assert None in written
    assert written[-1] is None
    [record] = caplog.records
    assert "in other words" in record.getMessage()
