"""The list that workers push to: nothing that was pushed is lost, whatever happens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from bridgetask import BrokerUnreachable, ClientClosed
from bridgetask.transports.redis.broker_settings import RedisBrokerSettings
from bridgetask.transports.redis.connection import FailoverConnector
from bridgetask.transports.redis.inbox import RedisInbox

from ...fakes import proxy
from ...fix_rabbitmq import make_app
from ...patience import PATIENCE, until
from ...redis_servers import Redis
from ...servers import free_ports

DB = 8
KEYS = ["inbox", "inbox:3"]


class Reading:
    """An inbox, and what it has handed over."""

    def __init__(self, url: str, **options: Any) -> None:
        app = make_app("inbox", url, None, broker_transport_options=options)
        self.messages: list[bytes] = []
        self.interruptions = 0
        self.wanted = True
        self.on_message: Callable[[bytes], None] = self.messages.append
        self.inbox = RedisInbox(
            FailoverConnector(RedisBrokerSettings.from_app(app).read),
            KEYS,
            asyncio.get_running_loop(),
            wanted=lambda: self.wanted,
            on_message=lambda message: self.on_message(message),
            on_interrupted=self._interrupted,
        )

    def _interrupted(self) -> None:
        self.interruptions += 1

    async def got(self, *expected: Any) -> None:
        wanted = [str(each).encode() for each in expected]
        await until(lambda: len(self.messages) >= len(wanted))
        assert self.messages == wanted


@pytest.fixture
async def reading(redis_server: Redis) -> AsyncIterator[Callable[..., Reading]]:
    """Makes inboxes on an empty database, and closes them."""
    redis_server.cli("-n", str(DB), "FLUSHDB")
    made: list[Reading] = []

    def make(url: str = "", **options: Any) -> Reading:
        made.append(Reading(url or redis_server.url(DB), **options))
        return made[-1]

    yield make
    await asyncio.gather(*(each.inbox.close() for each in made))


async def push(server: Redis, *messages: Any, key: str = "inbox") -> None:
    """Push messages, as workers do."""
    await asyncio.to_thread(server.cli, "-n", str(DB), "LPUSH", key, *map(str, messages))


def left(server: Redis) -> int:
    return int(server.cli("-n", str(DB), "LLEN", "inbox"))


async def test_what_is_there_and_what_comes_is_handed_over_in_order(
    reading: Callable[..., Reading], redis_server: Redis
) -> None:
    reads = reading()
    await push(redis_server, 1, 2, 3)
    await reads.inbox.start()
    await reads.got(1, 2, 3)
    await push(redis_server, 4)
    await push(redis_server, 5, 6)
    await reads.got(1, 2, 3, 4, 5, 6)
    await until(lambda: left(redis_server) == 0)


async def test_many_messages_cost_few_round_trips(
    reading: Callable[..., Reading], redis_server: Redis
) -> None:
    reads = reading()
    for start in range(0, 3000, 1000):
        await push(redis_server, *range(start, start + 1000))
    redis_server.cli("CONFIG", "RESETSTAT")
    await reads.inbox.start()
    await until(lambda: len(reads.messages) >= 3000)
    assert reads.messages == [b"%d" % n for n in range(3000)]
    [stats] = [
        line
        for line in redis_server.cli("INFO", "commandstats").splitlines()
        if line.startswith("cmdstat_blmove:")
    ]
    assert int(stats.partition("calls=")[2].partition(",")[0]) < 20


async def test_large_messages_are_read_a_few_at_a_time(
    reading: Callable[..., Reading], redis_server: Redis
) -> None:
    reads = reading()
    redis_server.cli(
        *("-n", str(DB), "EVAL"),
        "for n = 1, 40 do redis.call('LPUSH', KEYS[1], string.rep('x', 1000000)) end",
        *("1", "inbox"),
    )
    await reads.inbox.start()
    await until(lambda: len(reads.messages) >= 40)
    assert [len(each) for each in reads.messages] == [1_000_000] * 40
    assert reads.inbox._batch <= 4


async def test_other_priorities_are_looked_at_when_nothing_else_comes(
    reading: Callable[..., Reading], redis_server: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridgetask.transports.redis.inbox._WAITS", 1)
    reads = reading()
    await push(redis_server, "urgent", key="inbox:3")
    await reads.inbox.start()
    await reads.got("urgent")
    await until(lambda: redis_server.cli("-n", str(DB), "LLEN", "inbox:3") == "0")


async def test_what_comes_while_the_connection_is_down_is_there_after_it(
    reading: Callable[..., Reading], redis_server: Redis
) -> None:
    async with proxy(redis_server.port) as cable:
        reads = reading(f"redis://127.0.0.1:{cable.port}/{DB}")
        await reads.inbox.start()
        await push(redis_server, 1)
        await reads.got(1)
        cable.refuse = True
        cable.cut()
        await until(lambda: reads.interruptions == 1)
        await push(redis_server, 2, 3)
        cable.refuse = False
        await reads.got(1, 2, 3)
        await reads.inbox.close()


async def test_no_message_is_lost_with_connections_that_are_lost(
    reading: Callable[..., Reading], redis_server: Redis
) -> None:
    asyncio.get_running_loop().set_debug(False)
    async with proxy(redis_server.port) as cable:
        reads = reading(f"redis://127.0.0.1:{cable.port}/{DB}")
        await reads.inbox.start()
        for number in range(0, 300, 10):
            await push(redis_server, *range(number, number + 10))
            if number % 30 == 0:
                cable.mute = number % 60 == 0  # what is answered now is answered to nobody
                await push(redis_server, f"between {number}")
                cable.cut()
                cable.mute = False
        expected = {b"%d" % n for n in range(300)}
        await until(lambda: expected <= set(reads.messages))
        assert {b"between %d" % n for n in range(0, 300, 30)} <= set(reads.messages)
        await until(lambda: left(redis_server) == 0)
        await reads.inbox.close()


async def test_a_half_open_connection_takes_nothing_away(
    reading: Callable[..., Reading], redis_server: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridgetask.transports.redis.inbox._WAITS", 1)
    async with proxy(redis_server.port) as cable:
        reads = reading(f"redis://127.0.0.1:{cable.port}/{DB}", socket_timeout=0.5)
        await reads.inbox.start()
        cable.mute = True
        await push(redis_server, 1, 2)
        await until(lambda: reads.interruptions == 1)
        cable.mute = False
        await reads.got(1, 2)
        await reads.inbox.close()


async def test_a_user_who_may_not_move_pops_as_celery_does(
    reading: Callable[..., Reading], own_redis: Redis
) -> None:
    own_redis.cli("ACL", "SETUSER", "old", "on", ">0ld", "~*", "&*", "+@all", "-blmove")
    reads = reading(own_redis.url(DB, "old", "0ld"))
    await push(own_redis, 1, 2)
    await reads.inbox.start()
    await push(own_redis, "urgent", key="inbox:3")
    await until(lambda: len(reads.messages) == 3)
    assert sorted(reads.messages) == [b"1", b"2", b"urgent"]
    await push(own_redis, 3)
    await until(lambda: reads.messages[-1] == b"3")
    await reads.inbox.close()


async def test_nothing_more_is_read_while_it_is_held(
    reading: Callable[..., Reading], redis_server: Redis
) -> None:
    reads = reading()

    def take(message: bytes) -> None:
        reads.messages.append(message)
        reads.inbox.hold()

    reads.on_message = take
    await push(redis_server, *range(100))
    await reads.inbox.start()
    await until(lambda: len(reads.messages) == 32)
    await asyncio.sleep(0.1)
    assert len(reads.messages) == 32
    assert left(redis_server) == 100
    reads.on_message = reads.messages.append
    reads.inbox.release()
    await reads.got(*range(100))


async def test_a_list_that_is_none_is_complained_about_and_read_once_it_is_one(
    reading: Callable[..., Reading], redis_server: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    reads = reading()
    redis_server.cli("-n", str(DB), "SET", "inbox", "text")
    await reads.inbox.start()
    await until(lambda: "WRONGTYPE" in caplog.text)
    redis_server.cli("-n", str(DB), "DEL", "inbox")
    await push(redis_server, 1)
    await reads.got(1)


async def test_starting_fails_while_redis_is_down_and_succeeds_later(
    reading: Callable[..., Reading], own_redis: Redis
) -> None:
    reads = reading(own_redis.url(DB))
    reads.wanted = False
    await asyncio.to_thread(own_redis.stop)
    with pytest.raises(BrokerUnreachable):
        await reads.inbox.start()
    await asyncio.to_thread(own_redis.start)
    await reads.inbox.start()
    await push(own_redis, 1)
    await reads.got(1)
    await reads.inbox.close()


async def test_a_connection_that_nobody_wants_is_not_opened_again(
    reading: Callable[..., Reading], redis_server: Redis
) -> None:
    async with proxy(redis_server.port) as cable:
        reads = reading(f"redis://127.0.0.1:{cable.port}/{DB}")
        reads.wanted = False
        await reads.inbox.start()
        cable.cut()
        await until(lambda: reads.interruptions == 1)
        assert not reads.inbox.consuming
        assert cable.accepted == 1
        await reads.inbox.start()
        assert cable.accepted == 2
        await reads.inbox.close()


async def test_closing_ends_those_who_wait_for_it_to_start(
    reading: Callable[..., Reading],
) -> None:
    reads = reading(f"redis://127.0.0.1:{free_ports(1)[0]}")
    starting = asyncio.ensure_future(reads.inbox.start())
    await asyncio.sleep(0)
    await reads.inbox.close()
    with pytest.raises((ClientClosed, BrokerUnreachable)):
        await asyncio.wait_for(starting, PATIENCE)
    with pytest.raises(ClientClosed):
        await reads.inbox.start()
