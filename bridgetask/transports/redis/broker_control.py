"""What workers say beside results, over Redis: replies to commands, and events."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from weakref import WeakSet

from ...core.limited_log import LimitedLog
from ...core.receiving import EventListener, ReplyListener
from ...errors import BridgetaskError, InvalidOption
from ...wire.control import ControlMailbox, Purge
from ...wire.events import EventCapture
from ...wire.message import Declaration
from ...wire.virtual import Envelope
from .capture import RedisCapture
from .channel import Command, KombuCommands
from .commands import RedisCommands
from .errors import broker_error
from .inbox import RedisInbox
from .link import RedisLink
from .rpc_results import RedisRpcResults

__all__ = ["RedisControl"]

logger: logging.Logger = logging.getLogger(__name__)

#: Seconds after which the binding of the list for replies is declared again. kombu 5.7 gives up one
#: that was not for an hour.
_REFRESH = 20 * 60.0


class RedisControl:
    """Receives replies in the client's own list, and events by pub/sub.

    :param link: the connections to receive by.
    :param address: the list's name, and the address for results by ``rpc://``.
    :param kombu: what says which commands declare and purge.
    """

    #: Each command tells how many workers it has reached.
    workers: int | None = None

    def __init__(
        self,
        link: RedisLink,
        address: str,
        mailbox: ControlMailbox,
        replies: ReplyListener,
        kombu: KombuCommands,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._subscriptions = link.subscriptions
        self._address = address
        self._mailbox = mailbox
        self._replies = replies
        self._kombu = kombu
        self._loop = loop
        self._commands = RedisCommands(link.pipeline, loop, broker_error)
        #: Where results by ``rpc://`` go, if there are any.
        self.results: RedisRpcResults | None = None
        self._unreadable = LimitedLog(logger)
        self.inbox: RedisInbox = RedisInbox(
            link.connector,
            kombu.keys(address),
            loop,
            wanted=lambda: self.results is not None and self.results.wanted,
            on_message=self._on_message,
            on_interrupted=self._interrupted,
        )
        #: The commands that bind the list, once they were carried out; None while they were not.
        self._binding: Sequence[Command] | None = None
        self._refreshing: asyncio.Task[None] | None = None
        self._captures: WeakSet[RedisCapture] = WeakSet()

    # Replies.

    @property
    def ready(self) -> bool:
        return self._binding is not None and self.inbox.consuming

    async def prepare(self) -> None:
        await self.inbox.start()
        if self._binding is None:
            self._kombu.forget_bindings()
            binding = self._declare(
                replace(each, name=self._address)
                if each.name == self._mailbox.reply_queue
                else each
                for each in self._mailbox.reply_declarations
            )
            await self._commands.execute(*binding)
            self._binding = binding
            if self._refreshing is None:
                self._refreshing = self._loop.create_task(
                    self._refresh(binding), name="bridgetask Redis binding"
                )

    async def _refresh(self, binding: Sequence[Command]) -> None:
        """Declare the binding again before anybody takes it for abandoned."""
        while True:
            await asyncio.sleep(_REFRESH)
            with suppress(BridgetaskError):  # it is declared on the next connection
                await self._commands.execute(*binding)

    def _interrupted(self) -> None:
        self._binding = None  # the server may have lost it
        self._replies.interrupted()

    def _on_message(self, data: bytes) -> None:
        try:
            envelope = Envelope.of(data)
            if "ticket" in (envelope.properties.headers or ()):
                reply = self._mailbox.reply(envelope.body(), envelope.properties)
                if reply is not None:
                    self._replies.deliver(*reply)
            elif self.results is not None:
                self.results.take(envelope)
        except Exception as error:  # it may have been pushed by anybody
            self._unreadable.warning("Dropped a message that can't be read: %r", error)

    # Events, and purging.

    def subscribe(self, capture: EventCapture, listener: EventListener) -> RedisCapture:
        self._declare(capture.declarations)  # Redis need not know of it
        patterns = [topic.encode() for topic in self._kombu.topics(capture.queue)]
        made = RedisCapture(self._subscriptions, patterns, capture, listener)
        self._captures.add(made)
        return made

    async def purge(self, purge: Purge) -> int:
        declaring = self._declare(purge.declarations)
        *_, counts = await self._commands.execute(*declaring, *self._kombu.purge(purge.queue))
        return sum(counts[::2])

    def _declare(self, declarations: Iterable[Declaration]) -> list[Command]:
        try:
            return self._kombu.declare(declarations)
        except InvalidOption:
            raise
        except Exception as error:  # kombu's words for what Redis has not got
            raise InvalidOption("queue", f"can't be declared: {error}") from error

    # The end.

    async def close(self) -> None:
        """Stop, and delete the list and its binding: nobody will ever ask for what comes there."""
        self._stop()
        await self.inbox.close()
        with suppress(BridgetaskError):
            await self._delete()
        await self._commands.close()

    async def _delete(self) -> None:
        commands: list[Command] = []
        if self._binding is not None:
            commands += self._kombu.delete_queue(self._address)
        if self.inbox.used:
            commands.append(("DEL", *self._kombu.keys(self._address)))
        if commands:
            await self._commands.execute(*commands)

    def abort(self) -> None:
        self._stop()
        for capture in list(self._captures):
            capture.abort()
        self._subscriptions.abort()
        self.inbox.abort()
        self._commands.abort()

    def _stop(self) -> None:
        if self._refreshing is not None:
            self._refreshing.cancel()
