from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from bridgetask import BackendRefused, BackendUnreachable, ClientClosed
from bridgetask.transports.redis.commands import RedisCommands
from bridgetask.transports.redis.connection import RedisConnector
from bridgetask.transports.redis.errors import backend_error
from bridgetask.transports.redis.pipeline import RedisPipeline
from bridgetask.transports.redis.settings import RedisSettings

from ...fakes import proxy
from ...fix_rabbitmq import make_app
from ...patience import PATIENCE
from ...redis_servers import Redis


def commands_to(url: str, answer_timeout: float = 5.0) -> RedisCommands:
    server = RedisSettings.from_app(make_app("commands", "amqp://", url)).server
    loop = asyncio.get_running_loop()
    pipeline = RedisPipeline(RedisConnector(replace(server, answer_timeout=answer_timeout)), loop)
    return RedisCommands(pipeline, loop, backend_error)


@pytest.fixture
async def commands(redis_server: Redis) -> AsyncIterator[RedisCommands]:
    opened = commands_to(redis_server.url(db=5))
    yield opened
    await opened.close()


async def test_each_gets_the_answers_to_its_own_questions(commands: RedisCommands) -> None:
    answers = await asyncio.gather(
        *(commands.execute(("SET", f"k{n}", n), ("GET", f"k{n}")) for n in range(50))
    )
    assert answers == [[b"OK", b"%d" % n] for n in range(50)]


async def test_a_refusal_fails_its_own_request_only(commands: RedisCommands) -> None:
    bad, good = await asyncio.gather(
        commands.execute(("SET", "k", 1), ("INCR", "k", "too many")),
        commands.execute(("PING",)),
        return_exceptions=True,
    )
    assert isinstance(bad, BackendRefused)
    assert "wrong number of arguments" in str(bad)
    assert good == [b"PONG"]


async def test_a_refusal_within_a_transaction_is_a_refusal(commands: RedisCommands) -> None:
    with pytest.raises(BackendRefused, match="wrong kind of value"):
        await commands.execute(("MULTI",), ("SET", "text", "t"), ("LPUSH", "text", "x"), ("EXEC",))


async def test_a_connection_that_broke_meanwhile_is_replaced(
    commands: RedisCommands, redis_server: Redis
) -> None:
    assert await commands.execute(("PING",)) == [b"PONG"]
    redis_server.cli("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    assert await commands.execute(("PING",)) == [b"PONG"]


async def test_a_master_that_is_none_any_more_is_left(own_redis: Redis) -> None:
    commands = commands_to(own_redis.url())
    await commands.execute(("PING",))
    own_redis.cli("CONFIG", "SET", "replica-read-only", "yes")
    own_redis.cli("REPLICAOF", "127.0.0.1", "1")
    with pytest.raises(BackendUnreachable, match="read only"):
        await commands.execute(("SET", "k", "v"))
    assert not commands._pipeline.is_open
    await commands.close()


async def test_a_server_that_falls_silent_is_given_up(redis_server: Redis) -> None:
    async with proxy(redis_server.port) as cable:
        commands = commands_to(
            f"redis://127.0.0.1:{cable.port}?socket_connect_timeout=0.3", answer_timeout=0.3
        )
        await commands.execute(("PING",))
        cable.mute = True
        with pytest.raises(BackendUnreachable, match="no answer in time"):
            await asyncio.wait_for(commands.execute(("PING",)), PATIENCE)
        cable.mute = False
        assert await commands.execute(("PING",)) == [b"PONG"]
        await commands.close()


async def test_what_is_not_answered_when_it_closes_fails(redis_server: Redis) -> None:
    async with proxy(redis_server.port) as cable:
        commands = commands_to(f"redis://127.0.0.1:{cable.port}")
        await commands.execute(("PING",))
        cable.mute = True
        asked = asyncio.ensure_future(commands.execute(("PING",)))
        await asyncio.sleep(0.05)
        queued = asyncio.ensure_future(commands.execute(("PING",)))
        await asyncio.sleep(0.05)
        await commands.close()
        for each in (asked, queued):
            with pytest.raises(ClientClosed):
                await asyncio.wait_for(each, PATIENCE)
        with pytest.raises(ClientClosed):
            await commands.execute(("PING",))
