"""What an outbox hands to a publisher, and what the publisher tells of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from ..errors import (
    BackendError,
    BridgetaskError,
    BrokerUnreachable,
    NotSent,
    Refused,
    SendError,
    Unconfirmed,
)
from ..wire.message import OutgoingMessage
from .completion import Completion
from .receiving import Receiver

__all__ = [
    "ClosedOver",
    "ConnectionLost",
    "OnAnswer",
    "Publisher",
    "Sending",
    "TurnedAway",
    "error_of",
]


class ConnectionLost(BrokerUnreachable):
    """The connection, or the channel in use, went away under an operation."""


class TurnedAway(ConnectionLost):
    """The broker has not taken a message, and may take it from another connection."""


class ClosedOver(Refused):
    """The broker closed the channel or the connection over a message.

    It was one of those that were on their way. Which one, only the broker knows, unless it was
    the only one.
    """


class Sending:
    """A message between the call and what became of it."""

    __slots__ = (
        "alone",
        "deadline",
        "delivery",
        "last_error",
        "message",
        "number",
        "receiver",
        "retries",
        "unanswered",
    )

    def __init__(
        self,
        number: int,
        message: OutgoingMessage,
        delivery: Completion,
        deadline: float,
        receiver: Receiver | None,
    ) -> None:
        self.number: int = number
        self.message: OutgoingMessage = message
        self.delivery: Completion = delivery
        #: The loop's time by which it must have been settled.
        self.deadline: float = deadline
        #: What must be ready for the answer before the message goes.
        self.receiver: Receiver | None = receiver
        #: How many times it was published without an answer. Each may have reached the broker.
        self.unanswered: int = 0
        #: Whether it must be the only one on its way, so that a refusal is known to be its own.
        self.alone: bool = False
        self.retries: int = 0
        self.last_error: BridgetaskError | None = None

    def __lt__(self, other: Sending) -> bool:
        return self.number < other.number

    @property
    def may_retry(self) -> bool:
        """Whether its retry policy allows one more attempt."""
        policy = self.message.retry
        return policy is not None and policy.allows(self.retries)

    @property
    def pause(self) -> float:
        """Seconds that its retry policy wants before the retry that was counted last."""
        assert self.message.retry is not None
        return self.message.retry.interval(self.retries - 1)

    def needs_backend_like(self, other: Sending) -> bool:
        """Tell whether it must wait where another one waits for the result backend."""
        same_receiver = self.receiver is not None and self.receiver is other.receiver
        return self is other or same_receiver or bool(self.message.requires)

    async def settled(self) -> None:
        """Return once it is known what became of it, by its confirm or by its result."""
        known = asyncio.Event()
        # To wait for the delivery itself would mean that somebody asks for its error.
        self.delivery.then(known.set)
        await known.wait()


#: Takes what became of a message: None if the broker has confirmed it, otherwise
#: :class:`ConnectionLost` or ``Unconfirmed`` where it may have arrived, :class:`TurnedAway` where
#: it has not and is to go again, :class:`ClosedOver` where it or another one was refused so, and
#: any other error where it was refused by itself.
OnAnswer = Callable[[Sending, BridgetaskError | None], None]


class Publisher(Protocol):
    """Publishes messages to a broker in the order in which it is given them.

    It neither queues nor retries: the outbox does that. It tells once what became of each message,
    by the :data:`OnAnswer` that :meth:`start` was given, unless it was told to forget it.
    """

    #: How many messages may be given to it in one turn of the event loop.
    per_turn: int
    #: Bytes of a body from which on a message is written out before the next one is taken.
    large: int
    #: Bytes of a body from which on a message must be the only one on its way.
    alone: int

    def start(self, on_answer: OnAnswer) -> None:
        """Take what to tell answers to. Called once, before everything else."""

    @property
    def is_open(self) -> bool:
        """Whether there is a connection, as far as this side knows."""

    @property
    def blocked(self) -> str | None:
        """Why the broker takes no messages for now; None where it takes them."""

    def ready(self, message: OutgoingMessage) -> bool:
        """Tell whether :meth:`prepare` has nothing to do for a message.

        But for waiting while the broker is blocked, which is asked for once a turn.
        """

    async def connect(self) -> None:
        """Connect, unless connected.

        :raises NotSent: that was not possible.
        """

    async def prepare(self, message: OutgoingMessage) -> None:
        """Connect, and declare what the message needs. Returns once the broker takes messages.

        :raises InvalidOption: it needs something that can't be declared.
        :raises NotSent: that was not possible; :class:`ConnectionLost` where the connection was
            lost meanwhile.
        """

    def publish(self, sending: Sending) -> None:
        """Take a message for which this is ready.

        :raises InvalidOption: it can't be encoded.
        """

    def flush(self) -> None:
        """Write what was published. To be called before the turn of the event loop ends."""

    async def drain(self) -> None:
        """Write what was published, and return when the socket takes more.

        Nothing may be published meanwhile.
        """

    def forget(self, sending: Sending) -> None:
        """Do not tell what became of a message, nor hold on to it."""

    def retire(self) -> None:
        """Never connect again. A connection that is open stays so until it is closed."""

    async def close(self) -> None:
        """Disconnect."""

    def abort(self) -> None:
        """Drop the connection on the spot, with no goodbye."""


def error_of(
    message: OutgoingMessage, error: BridgetaskError, *, may_be_there: bool
) -> BridgetaskError:
    """Return the error of one message: with its own task id, and unknown if it may be there."""
    task = f"task {message.task_id}" if message.task_id else "message"
    told: SendError
    if may_be_there:
        told = Unconfirmed(f"{task} may or may not have been sent: no confirm came ({error})")
    elif isinstance(error, ConnectionLost):
        told = BrokerUnreachable(f"{task} was not sent: {error}")
    elif isinstance(error, Refused):
        told = Refused(f"{task} was not sent: {error}", code=error.code)
    elif isinstance(error, BackendError):
        told = NotSent(f"{task} was not sent, for its result could not be received: {error}")
    elif isinstance(error, SendError):
        told = type(error)(f"{task} was not sent: {error}")
    else:
        return error
    told.task_id = message.task_id
    told.__cause__ = error.__cause__ if isinstance(error, SendError) else error
    return told
