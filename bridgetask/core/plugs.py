"""The plugs: what stands for the broker and the result backend that an app's configuration names.

A plug is made from the app's settings, which does no I/O. It says what it can do, gives Celery's
code something to record on, and connects the sessions of a client.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from ..wire.codec import Codec
from ..wire.message import StoreWrite
from ..wire.producer import RecordingChannel
from .outcomes import PendingResults
from .publishing import Publisher
from .receiving import ControlChannel, ReplyListener, ResultSource, ResultStore

__all__ = [
    "BackendCapabilities",
    "BackendPlug",
    "BrokerCapabilities",
    "BrokerConnections",
    "BrokerPlug",
    "SessionContext",
]


@dataclass(frozen=True, slots=True)
class SessionContext:
    """What a session gives to those who connect it."""

    codec: Codec
    #: Takes what workers report of tasks.
    outcomes: PendingResults
    #: Takes what workers reply to commands.
    replies: ReplyListener
    loop: asyncio.AbstractEventLoop


@dataclass(frozen=True, slots=True)
class BrokerCapabilities:
    """What a kind of broker can do."""

    #: Whether it tells that it has taken a message.
    confirms: bool
    #: Whether it tells that no queue takes a message.
    returns_unroutable: bool
    #: Whether it tells how many workers a command has reached.
    counts_workers: bool
    #: Whether one message reaches all workers: control commands and events need that.
    fanout: bool
    #: Whether results can come by it, as ``rpc://`` wants.
    carries_results: bool


class BrokerConnections(Protocol):
    """What connects one session to a broker. Nothing connects before it is used."""

    @property
    def publisher(self) -> Publisher:
        """Return what publishes messages."""

    @property
    def control(self) -> ControlChannel:
        """Return what receives replies to commands, and events."""

    def results(self) -> ResultSource:
        """Return what receives results that come by the broker.

        :raises InvalidOption: the broker can't carry results.
        """


class BrokerPlug(Protocol):
    """A broker as an app's settings describe it."""

    @property
    def capabilities(self) -> BrokerCapabilities:
        """What it can do."""

    def recording_channel(self) -> RecordingChannel:
        """Return the channel that messages and declarations are recorded on."""

    def unconnected(self) -> Any:
        """Return a kombu connection like the app's, which Celery's code may ask for settings.

        Nothing connects it.
        """

    def connect(self, context: SessionContext) -> BrokerConnections:
        """Return what connects a session."""


@dataclass(frozen=True, slots=True)
class BackendCapabilities:
    """What a kind of result backend can do."""

    #: Whether workers push results here, so that nothing has to ask for them.
    pushes: bool
    #: Whether results are stored, so that any client can read those of any task.
    stores: bool
    #: Whether workers send results to the address that a message's ``reply_to`` names.
    uses_reply_to: bool


class BackendPlug(Protocol):
    """A result backend as an app's settings describe it."""

    @property
    def capabilities(self) -> BackendCapabilities:
        """What it can do."""

    @property
    def unavailable(self) -> str | None:
        """Why results can't be waited for, or None where they can."""

    @property
    def refuses_calls(self) -> bool:
        """Whether a call is refused unless its result is ignored."""

    def recording_backend(self, view: Any, record: Callable[[StoreWrite], None]) -> Any:
        """Return what Celery's code uses in place of the app's backend while it sends.

        :param view: the view of the app that Celery's code runs on.
        :param record: takes what would have been written.
        """

    def connect(
        self, context: SessionContext, broker: BrokerConnections
    ) -> tuple[ResultSource, ResultStore | None]:
        """Return what delivers results to a session, and where they are stored, if they are."""
