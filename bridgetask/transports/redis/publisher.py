"""Publishing to Redis: one pipeline, in order, with an answer for each message."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from ...core.completion import Completion
from ...core.publishing import ConnectionLost, OnAnswer, Sending, TurnedAway
from ...errors import BridgetaskError, ClientClosed, InvalidOption, NotRoutable, Refused
from ...wire.message import Declaration, OutgoingMessage
from .channel import KombuCommands
from .commands import RedisCommands
from .envelopes import Envelopes
from .errors import RedisError, broker_error, first_error, is_elsewhere
from .pipeline import RedisPipeline
from .resp import ErrorReply, Reply, encode

__all__ = ["RedisPublisher"]

#: How many sets of declarations are remembered as made.
_REMEMBERED = 1024


class _Written(NamedTuple):
    """A message on its way."""

    sending: Sending
    #: How many commands it took.
    commands: int
    #: How many of them are ``PUBLISH``, which is answered with how many have received it.
    broadcasts: int


class RedisPublisher:
    """Publishes over one connection, which others may use, too; see ``Publisher``.

    Where queues are bound to an exchange by their routing keys, they are asked for once for all
    messages of a turn of the loop. What is published meanwhile waits, so that the order stays.

    :param kombu: what says which commands a message is.
    """

    #: Each takes some 50 µs.
    per_turn = 64
    #: What the socket takes in one go, for certain.
    large = 65_536
    #: Redis closes the connection over what is larger than its ``proto-max-bulk-len``, 512 MB.
    alone = 128 * 1024 * 1024
    blocked: str | None = None

    def __init__(
        self, pipeline: RedisPipeline, kombu: KombuCommands, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._pipeline = pipeline
        self._kombu = kombu
        self._envelopes = Envelopes(kombu.publish)
        self._commands = RedisCommands(pipeline, loop, broker_error)
        pipeline.on_lost.append(self._forget_declarations)
        self._on_answer: OnAnswer
        #: What is known to exist on the connection: tuples of declarations by their ids.
        self._declared: dict[int, tuple[Declaration, ...]] = {}
        self._published: list[Sending] = []
        #: Messages that wait for what is bound to their exchanges; None where none do.
        self._routing: list[Sending] | None = None
        self._routed = Completion()
        self._forgotten: set[Sending] = set()
        self._retired = False

    def start(self, on_answer: OnAnswer) -> None:
        self._on_answer = on_answer

    @property
    def is_open(self) -> bool:
        return self._pipeline.is_open

    # Preparing.

    def ready(self, message: OutgoingMessage) -> bool:
        return (
            self._declared.get(id(message.declarations)) is message.declarations
            and self._pipeline.is_open
        )

    async def connect(self) -> None:
        if self._retired:
            raise ClientClosed("the client was closed")
        try:
            await self._pipeline.open()
        except RedisError as error:
            raise broker_error(error) from error.__cause__

    async def prepare(self, message: OutgoingMessage) -> None:
        await self.connect()
        declarations = message.declarations
        try:
            commands = self._kombu.declare(declarations)
        except InvalidOption:
            raise
        except Exception as error:  # kombu's words for what Redis has not got
            self._forget_declarations()
            raise InvalidOption("queue", f"can't be declared: {error}") from error
        self._envelopes.forget()  # they may be said in other words from now on
        if commands:
            try:
                await self._commands.execute(*commands)
            except BaseException:
                self._forget_declarations()  # kombu takes them for made
                raise
        if len(self._declared) >= _REMEMBERED:
            self._declared.clear()
        self._declared[id(declarations)] = declarations

    def _forget_declarations(self) -> None:
        self._declared.clear()
        self._kombu.forget_bindings()

    # Publishing.

    def publish(self, sending: Sending) -> None:
        self._published.append(sending)

    def flush(self) -> None:
        if self._published and self._routing is None:
            self._route()
        self._pipeline.flush()

    async def drain(self) -> None:
        self.flush()
        while self._routing is not None:
            await self._routed.wait()
        await self._pipeline.drain()

    def forget(self, sending: Sending) -> None:
        self._forgotten.add(sending)

    def _route(self) -> None:
        """Write what was published, having asked what is bound to its exchanges if need be."""
        sendings, self._published = self._published, []
        kombu = self._kombu
        exchanges = list(
            dict.fromkeys(
                exchange
                for sending in sendings
                if (exchange := sending.message.exchange) and kombu.needs_bindings(exchange)
            )
        )
        if not exchanges:
            self._write(sendings)
            return
        self._routing, self._routed = sendings, Completion()
        self._pipeline.ask(
            encode(map(kombu.read_bindings, exchanges)),
            len(exchanges),
            partial(self._bindings_read, exchanges),
        )

    def _bindings_read(
        self, exchanges: Sequence[str], answers: list[Reply], error: Exception | None
    ) -> None:
        sendings, self._routing = self._routing or [], None
        if error is not None:
            sendings += self._published
            self._published = []
            for sending in reversed(sendings):
                self._tell(sending, TurnedAway(str(error)))
        else:
            refused = self._know_bindings(exchanges, answers)
            for sending in sendings:
                if sending.message.exchange in refused:
                    self._tell(sending, refused[sending.message.exchange])
            self._write([each for each in sendings if each.message.exchange not in refused])
            self.flush()
        self._routed.complete()

    def _know_bindings(
        self, exchanges: Sequence[str], answers: list[Reply]
    ) -> dict[str, BridgetaskError]:
        """Take what is bound to exchanges; return the errors for those that tell nothing."""
        refused: dict[str, BridgetaskError] = {}
        for exchange, answer in zip(exchanges, answers, strict=True):
            if isinstance(answer, ErrorReply):
                refused[exchange] = self._refusal([answer])
                continue
            try:
                self._kombu.know_bindings(exchange, answer)
            except (ValueError, TypeError, AttributeError):
                refused[exchange] = Refused(f"what is bound to exchange {exchange!r} can't be read")
        return refused

    def _write(self, sendings: Sequence[Sending]) -> None:
        data: list[bytes] = []
        written: list[_Written] = []
        for sending in sendings:
            message = sending.message
            try:
                encoded = self._envelopes.encode(message)
                if encoded is not None:
                    data.append(encoded)
                    written.append(_Written(sending, 1, 0))
                    continue
                commands = self._kombu.publish(message)
                encoded = encode(commands)
            except Exception as error:  # whatever it is, it may not take others with it
                self._tell(sending, InvalidOption("headers", f"can't be encoded: {error}"))
                continue
            if commands:
                broadcasts = sum(command[0] == "PUBLISH" for command in commands)
                written.append(_Written(sending, len(commands), broadcasts))
                data.append(encoded)
            else:
                self._tell(sending, _unrouted(message))
        if written:
            count = sum(each.commands for each in written)
            self._pipeline.ask(b"".join(data), count, partial(self._answered, written))

    # Answers.

    def _answered(
        self, written: Sequence[_Written], answers: list[Reply], error: Exception | None
    ) -> None:
        at = 0
        lost: list[Sending] = []
        for each in written:
            replies = answers[at : at + each.commands]
            at += each.commands
            if len(replies) < each.commands:
                lost.append(each.sending)
            else:
                self._tell(each.sending, self._outcome(each, replies))
        for sending in reversed(lost):  # each goes back to its place, before all others
            self._tell(sending, ConnectionLost(str(error)))

    def _outcome(self, written: _Written, replies: list[Reply]) -> BridgetaskError | None:
        """Tell what became of a message; None where Redis has it."""
        if first_error(replies) is not None:
            return self._refusal(replies)
        if not written.broadcasts:
            return None
        received = [reply for reply in replies if isinstance(reply, int)]
        if written.broadcasts == 1:
            written.sending.delivery.receivers = sum(received)
        return None if any(received) else _unheard(written.sending.message)

    def _refusal(self, replies: list[Reply]) -> BridgetaskError:
        error = first_error(replies)
        assert error is not None
        if is_elsewhere(error):
            self._pipeline.lose(error.text)
            return TurnedAway(f"the server takes no messages: {error.text}")
        some = any(isinstance(reply, int) for reply in replies)
        return Refused(error.text + (", though one of its queues has it" if some else ""))

    def _tell(self, sending: Sending, error: BridgetaskError | None) -> None:
        if sending in self._forgotten:
            self._forgotten.discard(sending)
        else:
            self._on_answer(sending, error)

    # The end.

    def retire(self) -> None:
        self._retired = True

    async def close(self) -> None:
        await self._commands.close()

    def abort(self) -> None:
        self._commands.abort()


def _unrouted(message: OutgoingMessage) -> NotRoutable | None:
    if not message.mandatory:
        return None
    return NotRoutable(
        f"no queue is bound for routing key {message.routing_key!r} of exchange "
        f"{message.exchange!r}"
    )


def _unheard(message: OutgoingMessage) -> NotRoutable | None:
    if not message.mandatory:
        return None
    return NotRoutable(f"nobody listens to exchange {message.exchange!r}")
