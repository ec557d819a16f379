"""Commands to workers and their replies, by ``kombu.pidbox`` and ``celery.app.control``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from time import time
from typing import TYPE_CHECKING, Any

from kombu.serialization import prepare_accept_content
from kombu.utils.uuid import uuid

from ..errors import InvalidOption
from .message import Declaration, OutgoingMessage
from .recorder import Recorder, declarations_of
from .results import load

if TYPE_CHECKING:
    from celery import Celery

__all__ = ["ControlMailbox"]

_LATEST_CLOCK = 2**62


class ControlMailbox:
    """Writes commands as ``Mailbox._broadcast`` does, under an address of our own.

    Celery keys its replies by ``app.thread_oid``. With the same address, its own blocking
    ``control.ping()`` and ours would take each other's replies.
    """

    def __init__(self, app: Celery, recorder: Recorder) -> None:
        self._recorder = recorder
        self._mailbox = app.control.mailbox
        self._address = uuid()
        self._accept = prepare_accept_content(app.conf.accept_content)
        queue = self._mailbox.get_reply_queue()
        #: The queue that replies arrive in.
        self.reply_queue: str = f"{self._address}.{self._mailbox.reply_exchange.name}"
        queue.name, queue.routing_key = self.reply_queue, self._address
        #: What must be declared before replies can arrive.
        self.reply_declarations: tuple[Declaration, ...] = declarations_of(queue)

    def command(
        self,
        name: str,
        arguments: Mapping[str, Any],
        *,
        destination: Sequence[str] | None = None,
        pattern: str | None = None,
        matcher: str | None = None,
        ticket: str | None = None,
        timeout: float | None = None,
    ) -> OutgoingMessage:
        """Write one command.

        :param ticket: asks workers to reply, and comes back with each reply.
        :param timeout: seconds after which a worker ignores the command, or None.
        :raises InvalidOption: ``destination`` is not a list or tuple.
        """
        if destination is not None and not isinstance(destination, (list, tuple)):
            raise InvalidOption(
                "destination", f"must be a list or tuple, not {type(destination).__name__}"
            )
        mailbox = self._mailbox
        body: dict[str, Any] = {
            "method": name,
            "arguments": dict(arguments),
            "destination": destination,
            "pattern": pattern,
            "matcher": matcher,
        }
        if ticket is not None:
            body |= {
                "ticket": ticket,
                "reply_to": {
                    "exchange": mailbox.reply_exchange.name,
                    "routing_key": self._address,
                },
            }
        with self._recorder.not_mandatory():  # no worker may be up to hear it
            messages = self._recorder.record(
                lambda producer: producer.publish(
                    body,
                    exchange=mailbox.exchange.name,
                    declare=[mailbox.exchange],
                    headers={
                        "clock": mailbox.clock.forward(),
                        "expires": time() + timeout if timeout else 0,
                    },
                    serializer=mailbox.serializer,
                    retry=True,
                )
            )
        return messages[0]

    def read_command(self, message: OutgoingMessage) -> tuple[str, str | None] | None:
        """Return a command's name, and its ticket if it wants replies; None for other messages."""
        if message.exchange != self._mailbox.exchange.name:
            return None
        properties = message.properties
        body = load(
            message.body, properties["content_type"], properties["content_encoding"], None, None
        )
        return body["method"], body.get("ticket")

    def reply(
        self,
        body: bytes,
        content_type: str | None,
        content_encoding: str | None,
        headers: Mapping[str, Any] | None,
    ) -> tuple[str, Any] | None:
        """Read a reply as ``(ticket, what the worker said)``; None where it came too late.

        :raises Exception: whatever kombu raises for a message that can't be read.
        """
        given = headers or {}
        ticket, clock, expires = given["ticket"], given.get("clock") or 0, given.get("expires")
        if not isinstance(ticket, str):
            raise TypeError("ticket must be a string")
        # The clock is the app's. One near AMQP's largest number would stop it from sending.
        if not isinstance(clock, int) or not 0 <= clock <= _LATEST_CLOCK:
            raise ValueError("clock must be a number of 62 bits at most")
        self._mailbox.clock.adjust(clock)
        if expires and time() > expires:
            return None
        return ticket, load(body, content_type, content_encoding, given, self._accept)
