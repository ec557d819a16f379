"""Publishing to Redis: what is confirmed, refused, turned away, lost, or reaches nobody."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
from base64 import b64decode
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from celery import Celery
from kombu import Exchange, Queue
from kombu.common import Broadcast

from bridgetask import (
    BrokerUnreachable,
    Client,
    InvalidOption,
    NotRoutable,
    NotSent,
    Refused,
    Unconfirmed,
)

from ...fakes import Proxy, proxy
from ...fix_rabbitmq import close_celery, make_app
from ...patience import PATIENCE, until
from ...redis_monitor import Monitor
from ...redis_servers import Redis
from ...servers import free_ports

#: The database that messages are in.
DB = 9
ONCE = {"retry": False}
#: Retries for as long as the deadline allows.
PATIENT = {"task_publish_retry_policy": {"max_retries": None, "interval_start": 0.05}}

MakeApp = Callable[..., Celery]


@pytest.fixture
def broker_app(redis_server: Redis) -> Iterator[MakeApp]:
    """Makes apps with Redis as broker and no results, whose tasks nobody runs."""
    made: list[Celery] = []
    redis_server.cli("-n", str(DB), "FLUSHDB")

    def make(url: str = "", **conf: Any) -> Celery:
        conf.setdefault("task_default_queue", "q")
        made.append(make_app("broker_app", url or redis_server.url(DB), None, **conf))
        return made[-1]

    yield make
    for each in made:
        close_celery(each)


@pytest.fixture
async def client(broker_app: MakeApp) -> AsyncIterator[Client]:
    async with Client(broker_app()) as opened:
        yield opened


def cabled(broker_app: MakeApp, cable: Proxy) -> Client:
    """Return a client that is connected through a proxy."""
    return Client(broker_app(f"redis://127.0.0.1:{cable.port}/{DB}"))


def envelopes(server: Redis, queue: str = "q") -> list[dict[str, Any]]:
    """Return the messages in a queue, the oldest first."""
    listed = server.cli("--json", "-n", str(DB), "LRANGE", queue, "0", "-1")
    return [json.loads(each) for each in reversed(json.loads(listed))]


def ids(server: Redis, queue: str = "q") -> list[str]:
    return [each["properties"]["correlation_id"] for each in envelopes(server, queue)]


def first_arguments(server: Redis, queue: str = "q") -> list[Any]:
    return [json.loads(b64decode(each["body"]))[0][0] for each in envelopes(server, queue)]


class TestConfirmed:
    async def test_messages_arrive_in_the_order_of_the_calls(
        self, client: Client, redis_server: Redis
    ) -> None:
        asyncio.get_running_loop().set_debug(False)  # it makes every step many times as slow
        calls = [client.send_task("t", (number,)) for number in range(2000)]
        await asyncio.gather(*(call.sent() for call in calls))
        assert first_arguments(redis_server) == list(range(2000))

    async def test_what_is_confirmed_is_in_redis(self, client: Client, redis_server: Redis) -> None:
        for number in range(1, 4):
            await client.send_task("t", (number,)).sent()
            assert len(ids(redis_server)) == number

    async def test_messages_of_one_turn_go_in_one_write(
        self, client: Client, redis_server: Redis
    ) -> None:
        await client.send_task("t").sent()
        session: Any = client._sessions.current
        written: list[bytes] = []
        stream = session._outbox._publisher._pipeline._stream
        write, stream.write = stream.write, lambda data: (written.append(data), write(data))
        await asyncio.gather(*(client.send_task("t", (n,)).sent() for n in range(50)))
        assert len(written) == 1
        assert len(ids(redis_server)) == 51

    async def test_a_large_message_arrives_between_small_ones(
        self, client: Client, redis_server: Redis
    ) -> None:
        large = "x" * 20_000_000
        calls = [client.send_task("t", (each,)) for each in ("before", large, "after")]
        await asyncio.gather(*(call.sent() for call in calls))
        assert ids(redis_server) == [call.id for call in calls]

    async def test_everything_is_declared_again_for_a_server_that_lost_it(
        self, client: Client, redis_server: Redis
    ) -> None:
        def bindings() -> str:
            return redis_server.cli("-n", str(DB), "SMEMBERS", "_kombu.binding.x")

        queue = Queue("bound", Exchange("x", "topic"), "a.*")
        await client.send_task("t", queue=queue, routing_key="a.b").sent()
        before = bindings()
        assert "bound" in before
        redis_server.cli("-n", str(DB), "FLUSHDB")
        redis_server.cli("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await client.send_task("t", queue=queue, routing_key="a.b").sent()
        assert bindings() == before
        assert len(ids(redis_server, "bound")) == 1

    async def test_those_who_are_cancelled_shift_no_answers(
        self, broker_app: MakeApp, redis_server: Redis
    ) -> None:
        async with proxy(redis_server.port) as cable:
            cable.delay = 0.005
            app = broker_app(f"redis://127.0.0.1:{cable.port}/{DB}")
            redis_server.cli("-n", str(DB), "SET", "wrong", "no list")
            async with Client(app) as client:
                good, bad = [], []
                for number in range(300):
                    queue = "wrong" if number % 7 == 3 else "q"
                    sent = asyncio.ensure_future(client.send_task("t", queue=queue).sent())
                    (bad if queue == "wrong" else good).append(sent)
                    if number % 10 == 0:
                        await asyncio.sleep(0.001)
                    if random.random() < 0.3:
                        asyncio.get_running_loop().call_later(random.random() / 50, sent.cancel)
                for sendings, outcome in ((good, type(None)), (bad, Refused)):
                    outcomes = await asyncio.gather(*sendings, return_exceptions=True)
                    allowed = outcome, asyncio.CancelledError
                    assert all(isinstance(each, allowed) for each in outcomes)
            assert len(ids(redis_server)) == len(good)


class TestRefused:
    async def test_a_key_of_another_type_refuses_its_own_messages_only(
        self, client: Client, redis_server: Redis
    ) -> None:
        redis_server.cli("-n", str(DB), "SET", "wrong", "no list")
        calls = [client.send_task("t", queue=queue) for queue in ("q", "wrong", "q")]
        outcomes = await asyncio.gather(*(each.sent() for each in calls), return_exceptions=True)
        assert outcomes[::2] == [None, None]
        assert isinstance(outcomes[1], Refused)
        assert "WRONGTYPE" in str(outcomes[1])
        assert outcomes[1].task_id == calls[1].id
        assert len(ids(redis_server)) == 2

    async def test_a_server_without_memory_refuses(
        self, broker_app: MakeApp, own_redis: Redis
    ) -> None:
        async with Client(broker_app(own_redis.url(DB))) as client:
            await client.send_task("t").sent()
            own_redis.cli("CONFIG", "SET", "maxmemory", "1")
            with pytest.raises(Refused, match="OOM"):
                await client.send_task("t").sent()
            expiring = Queue("expiring", Exchange("e"), "e", expires=60)
            with pytest.raises(Refused, match="OOM"):
                await client.send_task("t", queue=expiring).sent()
            own_redis.cli("CONFIG", "SET", "maxmemory", "0")
            await client.send_task("t").sent()
            await client.send_task("t", queue=expiring).sent()
            assert len(ids(own_redis)) == 2
            assert len(ids(own_redis, "expiring")) == 1

    async def test_a_user_who_may_not_push_is_refused(
        self, broker_app: MakeApp, own_redis: Redis
    ) -> None:
        own_redis.cli("ACL", "SETUSER", "reader", "on", ">r3aders", "~*", "&*", "+@all", "-lpush")
        app = broker_app(own_redis.url(DB, "reader", "r3aders"))
        async with Client(app) as client:
            with pytest.raises(Refused, match="NOPERM"):
                await client.send_task("t").sent()
            own_redis.cli("ACL", "SETUSER", "reader", "+lpush")
            await client.send_task("t").sent()

    async def test_a_server_that_cannot_save_refuses(
        self, broker_app: MakeApp, own_redis: Redis
    ) -> None:
        async with Client(broker_app(own_redis.url(DB))) as client:
            await client.send_task("t").sent()
            own_redis.cli("CONFIG", "SET", "save", "3600 1")
            shutil.rmtree(own_redis._base)
            own_redis._base.mkdir()
            own_redis._base.chmod(0)
            own_redis.cli("CONFIG", "SET", "dbfilename", "x.rdb")
            own_redis.cli("BGSAVE")
            await until(
                lambda: "rdb_last_bgsave_status:err" in own_redis.cli("INFO", "persistence")
            )
            with pytest.raises(Refused, match="MISCONF"):
                await client.send_task("t").sent()

    async def test_what_json_has_no_words_for_is_refused_before_anything_is_sent(
        self, client: Client, redis_server: Redis
    ) -> None:
        with pytest.raises(InvalidOption, match="JSON"):
            await client.send_task("t", headers={"set": {1}}).sent()
        await client.send_task("t").sent()
        assert len(ids(redis_server)) == 1

    async def test_what_can_not_be_declared_is_refused_before_anything_is_sent(
        self, client: Client, redis_server: Redis
    ) -> None:
        bad = Queue("by-headers", Exchange("h", "headers"), "x")
        with pytest.raises(InvalidOption, match="exchange_type: 'headers'"):
            await client.send_task("t", queue=bad).sent()
        one, other = Exchange("same"), Exchange("same", "topic")
        await client.send_task("t", queue=Queue("one", one, "x")).sent()
        with pytest.raises(InvalidOption, match="Cannot redeclare exchange"):
            await client.send_task("t", queue=Queue("other", other, "x")).sent()
        await client.send_task("t").sent()
        assert len(ids(redis_server)) == 1

    async def test_a_login_that_is_refused_says_so_without_the_password(
        self, broker_app: MakeApp, redis_server: Redis
    ) -> None:
        client = Client(broker_app(redis_server.url(DB, "alice", "wr0ng")))
        with pytest.raises(Refused, match="invalid username-password") as refusal:
            await client.connect()
        assert "wr0ng" not in str(refusal.value)
        await client.close()


class TestNotRoutable:
    async def test_no_queue_is_bound(self, client: Client, redis_server: Redis) -> None:
        with pytest.raises(NotRoutable, match="no queue is bound for routing key 'x'"):
            await client.send_task("t", exchange="nobodys", routing_key="x").sent()
        queue = Queue("bound", Exchange("topics", "topic"), "a.*")
        with pytest.raises(NotRoutable):
            await client.send_task("t", queue=queue, routing_key="b.x").sent()
        await client.send_task("t", queue=queue, routing_key="a.x").sent()
        assert len(ids(redis_server, "bound")) == 1

    async def test_nobody_listens_to_a_fanout(self, client: Client) -> None:
        told = Broadcast("told", exchange=Exchange("told", "fanout"))
        call = client.send_task("t", queue=told, exchange="told", declare=[told.exchange])
        with pytest.raises(NotRoutable, match="nobody listens to exchange 'told'"):
            await call.sent()

    async def test_events_may_go_unheard(self, broker_app: MakeApp) -> None:
        async with Client(broker_app(task_send_sent_event=True)) as client:
            await client.send_task("t").sent()
            session: Any = client._sessions.current
            await session._outbox.drain()


class TestBindings:
    async def test_they_are_asked_for_once_for_all_messages_of_a_turn(
        self, broker_app: MakeApp, redis_server: Redis
    ) -> None:
        queue = Queue("bound", Exchange("direct"), "key")
        app = broker_app(task_queues=[queue])
        options = {"exchange": "direct", "routing_key": "key"}
        async with Client(app) as client:
            await client.send_task("t", queue="bound").sent()
            await client.send_task("t", **options).sent()  # declares the default queue
            with Monitor(redis_server) as monitor:
                calls = [client.send_task("t", (n,), **options) for n in range(40)]
                await asyncio.gather(*(call.sent() for call in calls))
                commands = [command[0] for command in monitor.take(DB)]
            assert commands == [b"SMEMBERS", *[b"LPUSH"] * 40]

    async def test_messages_keep_their_order_whatever_has_to_be_asked(
        self, broker_app: MakeApp, redis_server: Redis
    ) -> None:
        queue = Queue("q", Exchange("direct"), "q")
        kinds: list[dict[str, Any]] = [
            {"exchange": "direct", "routing_key": "q"},
            {"queue": "q"},
            {"exchange": "", "routing_key": "q"},
        ]
        async with Client(broker_app(task_queues=[queue])) as client:
            await client.send_task("t", (-1,), queue="q").sent()
            calls = []
            for number in range(300):
                calls.append(client.send_task("t", (number,), **kinds[number % 3]))
                if number % 11 == 0:
                    await asyncio.sleep(0)
            await asyncio.gather(*(call.sent() for call in calls))
        assert first_arguments(redis_server) == list(range(-1, 300))

    async def test_those_of_a_key_that_is_no_set_refuse_their_own_messages_only(
        self, client: Client, redis_server: Redis
    ) -> None:
        redis_server.cli("-n", str(DB), "SET", "_kombu.binding.broken", "x")
        redis_server.cli("-n", str(DB), "SADD", "_kombu.binding.odd", "no separators")
        await client.send_task("t").sent()
        calls = [
            client.send_task("t", exchange=exchange, routing_key="q")
            for exchange in ("broken", "", "odd")
        ]
        outcomes = await asyncio.gather(*(each.sent() for each in calls), return_exceptions=True)
        assert isinstance(outcomes[0], Refused)
        assert outcomes[1] is None
        assert isinstance(outcomes[2], Refused)


class TestLost:
    async def test_what_is_cut_off_before_its_answer_goes_again_under_the_same_id(
        self, broker_app: MakeApp, redis_server: Redis
    ) -> None:
        async with proxy(redis_server.port) as cable:
            app = broker_app(f"redis://127.0.0.1:{cable.port}/{DB}", **PATIENT)
            async with Client(app) as client:
                await client.send_task("t", task_id="first").sent()
                cable.mute = True
                calls = [client.send_task("t", (n,)) for n in range(20)]
                await until(lambda: len(ids(redis_server)) == 21)
                cable.mute = False
                cable.cut()
                await asyncio.wait_for(asyncio.gather(*(call.sent() for call in calls)), PATIENCE)
        assert ids(redis_server) == ["first", *[call.id for call in calls] * 2]

    async def test_what_may_not_be_sent_again_is_unconfirmed(
        self, broker_app: MakeApp, redis_server: Redis
    ) -> None:
        async with proxy(redis_server.port) as cable, cabled(broker_app, cable) as client:
            await client.send_task("t").sent()
            cable.mute = True
            call = client.send_task("t", **ONCE)
            await until(lambda: call.id in ids(redis_server))
            cable.cut()
            with pytest.raises(Unconfirmed) as unknown:
                await call.sent()
            assert unknown.value.task_id == call.id

    async def test_those_that_were_answered_before_the_loss_are_confirmed(
        self, broker_app: MakeApp, redis_server: Redis
    ) -> None:
        async with proxy(redis_server.port) as cable, cabled(broker_app, cable) as client:
            await client.send_task("t").sent()
            session: Any = client._sessions.current
            stream = session._outbox._publisher._pipeline._stream
            feed, fed = stream.data_received, []

            def first_two_answers(data: bytes) -> None:
                fed.append(data)
                feed(b"".join(data.splitlines(keepends=True)[:2]))
                cable.cut()

            stream.data_received = first_two_answers
            stream._transport.set_protocol(stream)
            calls = [client.send_task("t", (n,), **ONCE) for n in range(5)]
            outcomes = await asyncio.gather(
                *(call.sent() for call in calls), return_exceptions=True
            )
        assert outcomes[:2] == [None, None]
        assert all(isinstance(each, Unconfirmed) for each in outcomes[2:])

    async def test_a_server_that_falls_silent_is_given_up_and_connected_to_again(
        self, broker_app: MakeApp, redis_server: Redis
    ) -> None:
        async with proxy(redis_server.port) as cable:
            url = f"redis://127.0.0.1:{cable.port}/{DB}"
            options = {"socket_timeout": 0.5}
            app = broker_app(url, broker_transport_options=options, **PATIENT)
            async with Client(app) as client:
                await client.send_task("t").sent()
                cable.mute = True
                call = client.send_task("t")
                await until(lambda: call.id in ids(redis_server))
                cable.mute = False
                await asyncio.wait_for(call.sent(), PATIENCE)
                assert cable.accepted == 2
        assert ids(redis_server).count(call.id) == 2

    async def test_a_connection_that_is_idle_is_looked_after(
        self, broker_app: MakeApp, redis_server: Redis
    ) -> None:
        async with proxy(redis_server.port) as cable:
            url = f"redis://127.0.0.1:{cable.port}/{DB}"
            options = {"socket_timeout": 0.3, "health_check_interval": 0.3}
            async with Client(broker_app(url, broker_transport_options=options)) as client:
                await client.send_task("t").sent()
                session: Any = client._sessions.current
                pipeline = session._outbox._publisher._pipeline
                await asyncio.sleep(1)  # the server answers, and is kept
                assert pipeline.is_open
                cable.mute = True
                await until(lambda: not pipeline.is_open)
                cable.mute = False
                await client.send_task("t").sent()
                assert cable.accepted == 2
        assert len(ids(redis_server)) == 2

    async def test_with_no_broker_up_a_call_fails_after_its_retries(
        self, broker_app: MakeApp
    ) -> None:
        app = broker_app(f"redis://127.0.0.1:{free_ports(1)[0]}")
        policy = {"max_retries": 1, "interval_start": 0, "interval_step": 0.1}
        client = Client(app)
        with pytest.raises(BrokerUnreachable):
            await asyncio.wait_for(client.send_task("t", retry_policy=policy).sent(), PATIENCE)
        await client.close()

    async def test_what_is_sent_while_redis_is_down_goes_once_it_is_up(
        self, broker_app: MakeApp, own_redis: Redis
    ) -> None:
        async with Client(broker_app(own_redis.url(DB), **PATIENT)) as client:
            await client.send_task("t").sent()
            await asyncio.to_thread(own_redis.stop)
            calls = [client.send_task("t") for _ in range(20)]
            await asyncio.sleep(0.3)
            await asyncio.to_thread(own_redis.start)
            await asyncio.wait_for(asyncio.gather(*(call.sent() for call in calls)), PATIENCE)
            assert ids(own_redis) == [call.id for call in calls]


class TestTurnedAway:
    async def test_a_master_that_became_a_replica_is_waited_for_and_nothing_doubled(
        self, broker_app: MakeApp, own_redis: Redis
    ) -> None:
        async with Client(broker_app(own_redis.url(DB), **PATIENT)) as client:
            await client.send_task("t").sent()
            own_redis.cli("REPLICAOF", "127.0.0.1", str(free_ports(1)[0]))
            calls = [client.send_task("t") for _ in range(20)]
            failing = client.send_task("t", retry=False)
            with pytest.raises(NotSent, match="READONLY"):
                await failing.sent()
            await asyncio.sleep(0.3)
            own_redis.cli("REPLICAOF", "NO", "ONE")
            await asyncio.wait_for(asyncio.gather(*(call.sent() for call in calls)), PATIENCE)
            assert ids(own_redis)[1:] == [call.id for call in calls]

    async def test_the_next_server_of_a_list_is_taken_then(
        self, broker_app: MakeApp, own_redis: Redis, redis_server: Redis
    ) -> None:
        url = f"{own_redis.url(DB)};{redis_server.url(DB)}"
        async with Client(broker_app(url, **PATIENT)) as client:
            await client.send_task("t", task_id="here").sent()
            own_redis.cli("REPLICAOF", "127.0.0.1", str(free_ports(1)[0]))
            await client.send_task("t", task_id="there").sent()
        assert ids(redis_server) == ["there"]

    async def test_the_next_server_of_a_list_is_taken_where_one_is_down(
        self, broker_app: MakeApp, redis_server: Redis
    ) -> None:
        url = f"redis://127.0.0.1:{free_ports(1)[0]};{redis_server.url(DB)}"
        async with Client(broker_app(url)) as client:
            await client.send_task("t", task_id="there").sent()
        assert ids(redis_server) == ["there"]

    async def test_a_server_that_loads_its_data_is_waited_for(self, broker_app: MakeApp) -> None:
        with Redis(config={"enable-debug-command": "yes", "key-load-delay": "2000"}) as server:
            server.cli("EVAL", "for n = 1, 1000 do redis.call('SET', 'k' .. n, n) end", "0")
            app = broker_app(server.url(DB), **PATIENT)
            async with Client(app) as client:
                await client.send_task("t").sent()
                loading = asyncio.ensure_future(asyncio.to_thread(server.cli, "DEBUG", "RELOAD"))
                await asyncio.sleep(0.3)
                calls = [client.send_task("t") for _ in range(5)]
                await asyncio.wait_for(asyncio.gather(*(call.sent() for call in calls)), PATIENCE)
                await loading
            assert ids(server)[1:] == [call.id for call in calls]
