"""What inputs are fed to, and what must hold whatever they are.

Each target takes bytes, and raises ``AssertionError``, or whatever else gets out, where something
is wrong. ``test_fuzz.py`` runs them with hypothesis, ``scripts/fuzz`` with atheris. Those that read
frames of AMQP are in ``frame_targets.py``.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from unittest.mock import MagicMock

from celery import Celery
from redis.asyncio.connection import Connection

from bridgetask import ResultUndecodable, TaskUpdate
from bridgetask.core.decoding import Decode, Decoding
from bridgetask.core.early import EarlyUpdates
from bridgetask.core.outcomes import Outcome, PendingResults
from bridgetask.core.replies import PendingReplies
from bridgetask.errors import BridgetaskError
from bridgetask.retry import RetryPolicy
from bridgetask.transports.amqp.control import AmqpControlChannel
from bridgetask.transports.amqp.results import RpcResults
from bridgetask.transports.plugs import Plugs
from bridgetask.transports.redis.errors import RedisError
from bridgetask.transports.redis.link import RedisLink
from bridgetask.transports.redis.results import RedisResults
from bridgetask.transports.redis.settings import RedisSettings
from bridgetask.transports.redis.stream import RedisStream
from bridgetask.transports.redis.subscriber import RedisSubscriber
from bridgetask.transports.redis.watches import Watch
from bridgetask.wire.events import EventCapture
from bridgetask.wire.message import Properties
from bridgetask.wire.results import ResultDecoder

from . import inputs
from .frame_targets import LOOP, Socket, frames, properties, settle, splitter
from .inputs import IDS, NAMED, Choices

__all__ = ["TARGETS"]

LIMIT = 100_000

RPC = Plugs.of(
    Celery("fuzzed", broker="amqp://127.0.0.1:1//", backend="rpc://", set_as_current=False)
).codec("replies", max_result_size=LIMIT)
REDIS_APP = Celery(
    "fuzzed", broker="amqp://", backend="redis://127.0.0.1:1/0", set_as_current=False
)
REDIS = Plugs.of(REDIS_APP).codec("replies", max_result_size=LIMIT)
SERVER = RedisSettings.from_app(REDIS_APP).server
#: What is there to be held, and never used.
UNUSED: Any = MagicMock()
HARMLESS = (json.dumps({"task_id": IDS[2], "status": "SUCCESS", "result": "fine"})).encode()


class DecodingAtOnce(Decoding):
    """Decodes what is slow at once as well: in steps, and compares."""

    def _start(self, decode: Decode) -> asyncio.Future[TaskUpdate]:
        decoded = self._loop.create_future()
        try:
            update = decode(True)
        except ResultUndecodable as error:
            decoded.set_exception(error)
        else:
            decoded.set_result(update)
        return decoded


class Waiting:
    """Three results that are waited for; the last one is nobody's but its own worker's to give."""

    def __init__(self) -> None:
        self.pending = PendingResults()
        self.outcomes: list[Outcome] = [self.pending.register(task_id) for task_id in IDS]
        self.updates = [outcome.subscribe() for outcome in self.outcomes]

    def check(self) -> None:
        """Nothing that names other tasks has touched the last one, or run any code."""
        for outcome in self.outcomes:
            update, error = outcome.final, outcome.error
            assert error is None or isinstance(error, BridgetaskError)
            if update is not None:
                check_update(update)
        assert not self.outcomes[2].history
        assert not self.outcomes[2].done
        assert not inputs.executed
        early: EarlyUpdates = self.pending._early
        assert early._size >= 0

    def check_delivered(self) -> None:
        final = self.outcomes[2].final
        assert final is not None
        assert final.result == "fine"


def check_update(update: TaskUpdate) -> None:
    error = update.error
    assert error is None or isinstance(error, Exception)
    assert not isinstance(error, (StopIteration, StopAsyncIteration))
    assert isinstance(update.task_id, str)
    assert isinstance(update.children, tuple)


def results(data: bytes) -> None:
    """Bodies, headers and properties in the reply queue."""
    choices, waiting = Choices(data), Waiting()
    receiver = RpcResults(
        UNUSED, "replies", 1.0, RPC.decoder, waiting.pending, DecodingAtOnce(LOOP)
    )
    for _ in range(4):
        message = inputs.message(choices)
        receiver._on_message(*message)
        same_in_steps(RPC.decoder, message)
        if not choices:
            break
    settle()
    waiting.check()
    receiver._on_message(HARMLESS, Properties("application/json", "utf-8", None, IDS[2]))
    waiting.check_delivered()


def same_in_steps(decoder: ResultDecoder, message: inputs.HostileMessage) -> None:
    """Decoding on a thread comes to the same as on the loop."""
    assert outcome_of(decoder, message, False) == outcome_of(decoder, message, True)


def outcome_of(decoder: ResultDecoder, message: inputs.HostileMessage, in_steps: bool) -> str:
    try:
        return repr(decoder.decode(*message, in_steps))
    except ResultUndecodable as error:
        undecodable = str(error)
    assert undecodable.isprintable()
    assert len(undecodable) < 500
    return "undecodable"


def stored(data: bytes) -> None:
    """Payloads in Redis: published, stored, and stored as a group."""
    choices, waiting = Choices(data), Waiting()

    class Unconnected(RedisResults):
        def _begin(self, watch: Watch) -> None:
            pass

    key_for = REDIS.recorder.backend.get_key_for_task
    receiver = Unconnected(
        RedisLink(UNUSED, LOOP),
        0,
        RetryPolicy(),
        key_for,
        REDIS.decoder,
        waiting.pending,
        DecodingAtOnce(LOOP),
        LOOP,
    )
    receiver.expect(IDS)
    for _ in range(4):
        task_id, payload = choices.pick(NAMED), inputs.stored(choices)
        receiver._on_message(key_for(task_id), payload)
        read = receiver._decode(task_id, payload)
        assert isinstance(LOOP.run_until_complete(read), (TaskUpdate, ResultUndecodable))
        with suppress(ResultUndecodable):
            REDIS.decoder.decode_group(payload, task_id)
        if not choices:
            break
    settle()
    waiting.check()
    receiver._on_message(key_for(IDS[2]), HARMLESS)
    waiting.check_delivered()


def subscribed(data: bytes) -> None:
    """What a Redis server says, or somebody who has taken its place."""
    choices = Choices(data)
    lost: list[RedisError] = []
    answers = [b"+OK", b"-ERR no", b":5", b"$-1", b"$5", b"*3", b"*0", b"*-1", b"$7", b"message"]
    said = b"".join(
        choices.noise() if not choices.number(6) else choices.pick(answers) + b"\r\n"
        for _ in range(30)
    )

    async def listen() -> None:
        connection, socket = Connection(protocol=2), Socket()
        connection._reader, connection._writer = asyncio.StreamReader(), socket
        stream = RedisStream(connection, "redis://fuzzed")
        subscriber = RedisSubscriber(stream, SERVER, *(lambda *_: None,) * 2, lost.append)
        subscriber.subscribe(b"channel")
        await asyncio.sleep(0)
        at = 0
        while at < len(said):
            size = choices.pick([4096, 1, 7, 100])
            if not stream.is_lost:
                stream.data_received(said[at : at + size])
            at += size
            while stream._turn is not None:
                await asyncio.sleep(0)
        stream.eof_received()
        while not lost:
            await asyncio.sleep(0)
        subscriber.abort()

    LOOP.run_until_complete(asyncio.wait_for(listen(), 5))
    (error,) = lost
    assert isinstance(error, RedisError)


def control(data: bytes) -> None:
    """Replies to commands, and events."""
    choices, replies = Choices(data), PendingReplies()
    channel = AmqpControlChannel(UNUSED, RPC.mailbox, replies)
    clock = RPC.mailbox._mailbox.clock
    for _ in range(4):
        body, properties = inputs.message(choices)
        channel._on_message(body, properties)
        assert 0 <= clock.value <= 2**62 + 8
        for event in CAPTURE.read(body, properties):
            assert isinstance(event, dict)
        clock.value = 0
        if not choices:
            break
    assert not inputs.executed


CAPTURE = EventCapture(RPC.app, "#", None)

TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target
    for target in (results, stored, subscribed, properties, splitter, frames, control)
}
