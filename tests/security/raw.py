"""Messages as anybody may write them, into the reply queue of a client."""

from __future__ import annotations

import struct
from typing import Any

import amqp

from bridgetask import Client

from ..servers import TESTER, TESTERS_PASSWORD, RabbitMQ


class _RawMessage(amqp.Message):
    """A message whose properties are sent as they are given."""

    def __init__(self, body: bytes, encoded: bytes) -> None:
        super().__init__(body)
        self._encoded = encoded

    def _serialize_properties(self) -> bytes:
        return self._encoded


def publish(
    node: RabbitMQ,
    client: Client,
    body: bytes | str,
    *,
    encoded_properties: bytes | None = None,
    **properties: Any,
) -> None:
    """Publish into a client's reply queue.

    :param encoded_properties: flags and properties as AMQP has them, for those that are broken.
    """
    body = body.encode() if isinstance(body, str) else body
    properties.setdefault("content_encoding", "utf-8")
    message = (
        amqp.Message(body, **properties)
        if encoded_properties is None
        else _RawMessage(body, encoded_properties)
    )
    with amqp.Connection(
        f"127.0.0.1:{node.port}", userid=TESTER, password=TESTERS_PASSWORD
    ) as connection:
        channel = connection.channel()
        channel.confirm_select()
        channel.basic_publish_confirm(
            message, exchange="", routing_key=client._sessions.codec.recorder.reply_to
        )


def short(data: bytes) -> bytes:
    """Encode a short string, be it UTF-8 or not."""
    return bytes((len(data),)) + data


def long(data: bytes) -> bytes:
    """Encode a long string, or a table."""
    return struct.pack(">I", len(data)) + data
