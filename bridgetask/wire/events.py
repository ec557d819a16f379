"""Events of workers and tasks: Celery's ``EventReceiver`` reads them, its ``State`` keeps them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from celery.exceptions import ImproperlyConfigured
from kombu.serialization import prepare_accept_content

from ..errors import InvalidOption
from .message import Declaration, OutgoingMessage, Properties
from .producer import declarations_of
from .results import load

if TYPE_CHECKING:
    from celery import Celery
    from celery.events.state import State

__all__ = ["EventCapture"]

logger: logging.Logger = logging.getLogger(__name__)


class EventCapture:
    """Reads the events that arrive in one queue, and updates a state with them.

    :param app: the Celery app, whose ``event_*`` settings apply.
    :param routing_key: which events the broker shall send, by AMQP's pattern.
    :param state: the state to keep; None makes one.
    :raises InvalidOption: the app's settings can't be used.
    """

    def __init__(self, app: Celery, routing_key: str, state: State | None) -> None:
        self._events: list[dict[str, Any]] = []
        try:
            self._receiver: Any = app.events.Receiver(
                None, handlers={"*": self._events.append}, routing_key=routing_key
            )
        except ImproperlyConfigured as error:
            raise InvalidOption("event_queue_exclusive", str(error)) from error
        self._accept = prepare_accept_content(self._receiver.accept)
        self.state: State = app.events.State() if state is None else state
        #: The queue that events arrive in: this capture's own, as Celery's receiver declares it.
        self.queue: str = self._receiver.queue.name
        #: What must be declared before events can arrive.
        self.declarations: tuple[Declaration, ...] = declarations_of(self._receiver.queue)

    def takes(self, message: OutgoingMessage) -> bool:
        """Tell whether a message is an event of the exchange that this one's queue is bound to."""
        return bool(message.exchange == self._receiver.exchange.name)

    def read(self, body: bytes, properties: Properties) -> list[dict[str, Any]]:
        """Return the events in a message. Workers send many events of tasks in one message.

        Events that can't be read are logged, and left out.
        """
        try:
            said = load(body, properties, self._accept)
        except Exception as error:  # anybody may have written it
            logger.warning("Dropped events that can't be read: %s", error)
            return []
        for event in said if isinstance(said, list) else [said]:
            self._read_one(event)
        read = self._events.copy()
        self._events.clear()
        return read

    def _read_one(self, event: Any) -> None:
        try:
            self._receiver._receive(event, None)
        except Exception as error:
            logger.warning("Dropped an event that can't be read: %r", error)
            return
        try:
            self.state.event(event)
        except Exception:  # an event without its fields, or a callback of the user's
            logger.exception("Celery's State could not take the event %r", event.get("type"))
