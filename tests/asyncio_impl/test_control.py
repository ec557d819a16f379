from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from bridgetask import (
    BrokerUnreachable,
    Client,
    ClientClosed,
    InvalidOption,
    NotRoutable,
    ResultTimeout,
    ResultUnavailable,
    TaskRevoked,
)

from .. import tasks
from ..fakes import proxy
from ..fix_rabbitmq import make_app
from ..servers import RabbitMQ, Worker, free_ports

PONG = {"ok": "pong"}


# Asking.


async def test_a_ping_reaches_the_workers(client: Client, worker: Worker) -> None:
    assert {worker.name: PONG} in await client.control.ping(timeout=1)


async def test_an_answer_comes_as_soon_as_those_asked_have_replied(
    client: Client, worker: Worker
) -> None:
    began = time.monotonic()
    assert await client.control.ping([worker.name], timeout=60) == [{worker.name: PONG}]
    assert await client.control.ping(limit=1, timeout=60) == [{worker.name: PONG}]
    assert await client.control.ping(limit=1, timeout=None) == [{worker.name: PONG}]
    replies = await client.control.broadcast("ping", None, [worker.name], reply=True, timeout=60)
    assert replies == [{worker.name: PONG}]
    asked = client.control.inspect([worker.name], timeout=60)
    assert await asked.ping() == {worker.name: PONG}
    assert await client.control.inspect(limit=1, timeout=60).revoked() is not None
    assert time.monotonic() - began < 30


async def test_where_nobody_says_how_many_shall_answer_the_timeout_ends_it(
    client: Client, worker: Worker
) -> None:
    began = time.monotonic()
    assert await client.control.ping(timeout=0.3) == [{worker.name: PONG}]
    assert 0.3 <= time.monotonic() - began < 30


async def test_a_worker_that_is_not_there_is_waited_for_and_missing(
    client: Client, worker: Worker
) -> None:
    names = [worker.name, "nobody@nowhere"]
    assert await client.control.ping(names, timeout=0.3) == [{worker.name: PONG}]
    assert await client.control.ping(["nobody@nowhere"], timeout=0.1) == []
    assert await client.control.inspect(["nobody@nowhere"], timeout=0.1).active() is None


async def test_questions_at_the_same_time_get_their_own_replies(
    client: Client, worker: Worker
) -> None:
    asked = client.control.inspect([worker.name], timeout=60)
    *pings, clock, nobody = await asyncio.gather(
        *(client.control.ping([worker.name], timeout=60) for _ in range(20)),
        asked.clock(),
        client.control.ping(["nobody@nowhere"], timeout=0.1),
    )
    assert pings == [[{worker.name: PONG}]] * 20
    assert clock.keys() == {worker.name}
    assert nobody == []


async def test_celerys_own_client_beside_us_gets_its_own_replies(
    app: Celery, client: Client, worker: Worker
) -> None:
    celerys, ours = await asyncio.gather(
        asyncio.to_thread(app.control.ping, [worker.name], timeout=10),
        client.control.ping([worker.name], timeout=60),
    )
    assert celerys == ours == [{worker.name: PONG}]


async def test_a_pattern_says_who_shall_answer(client: Client, worker: Worker) -> None:
    glob = {"pattern": "te*@*", "matcher": "glob"}
    assert await client.control.ping(limit=1, timeout=60, **glob) == [{worker.name: PONG}]
    assert await client.control.ping(timeout=0.2, pattern="^x", matcher="pcre") == []
    assert await client.control.inspect(limit=1, timeout=60, **glob).ping() == {worker.name: PONG}
    assert await client.control.inspect(limit=1, timeout=60, pattern="x*").ping() == {}


async def test_a_pattern_without_a_matcher_is_refused_rather_than_sent_to_all(
    client: Client,
) -> None:
    with pytest.raises(InvalidOption, match="pattern: and matcher must be given together"):
        await client.control.shutdown(pattern="spare*")


async def test_a_callback_gets_each_reply_as_it_comes(client: Client, worker: Worker) -> None:
    heard: list[Any] = []
    asking = asyncio.create_task(client.control.ping(timeout=60, callback=heard.append))
    async with asyncio.timeout(30):
        while not heard:
            await asyncio.sleep(0.01)
    assert not asking.done()
    asking.cancel()
    assert heard == [{worker.name: PONG}]


@pytest.mark.parametrize("error", [ValueError("no"), TimeoutError("mine")])
async def test_what_a_callback_raises_ends_the_asking(client: Client, error: Exception) -> None:
    def refuse(reply: Any) -> None:
        raise error

    with pytest.raises(type(error), match=str(error)):
        await client.control.ping(timeout=60, callback=refuse)


async def test_a_bad_argument_is_refused_by_its_name(client: Client) -> None:
    with pytest.raises(InvalidOption, match="destination: must be a list or tuple, not str"):
        await client.control.ping("worker@host")
    with pytest.raises(InvalidOption, match="destination: must be a list or tuple, not str"):
        await client.control.revoke("id", destination="worker@host")
    with pytest.raises(InvalidOption, match="timeout: must be given where no limit or destination"):
        await client.control.ping(timeout=None)
    with pytest.raises(InvalidOption, match="connection: can't be used"):
        client.control.inspect(connection=object())
    with pytest.raises(InvalidOption, match="connection: can't be used"):
        await client.control.purge(object())
    with pytest.raises(InvalidOption, match="app: can't be used"):
        client.control.inspect(app=client.app)


# Nobody there, and other faults.


@pytest.fixture
async def deserted_client(rabbitmq: RabbitMQ) -> AsyncIterator[Client]:
    """A client of a virtual host that has no workers."""
    async with Client(make_app("deserted", rabbitmq.url("a/b"))) as opened:
        yield opened


async def test_with_no_worker_up_a_question_is_answered_at_once(deserted_client: Client) -> None:
    control = deserted_client.control
    async with asyncio.timeout(30):
        assert await control.ping(timeout=60) == []
        assert await control.ping(["a@b"], timeout=60) == []
        assert await control.broadcast("rate_limit", reply=True, timeout=60) == []
        assert await control.inspect(timeout=60).active() is None


async def test_with_no_worker_up_a_command_fails_at_once(deserted_client: Client) -> None:
    control = deserted_client.control
    async with asyncio.timeout(30):
        for command in (
            control.rate_limit("t", 1),
            control.shutdown(),
            control.enable_events(),
            control.terminate("id"),
            control.broadcast("my_own"),
        ):
            with pytest.raises(NotRoutable, match=r"no worker is up to hear '\w+'") as caught:
                await command
            assert "deserted" not in str(caught.value)


async def test_a_task_that_no_worker_was_told_of_is_not_taken_for_revoked(
    deserted_client: Client,
) -> None:
    call = deserted_client.send_task("waits", queue="deserted")
    await call.sent()
    with pytest.raises(NotRoutable, match="no worker is up to hear 'revoke'"):
        await call.revoke()
    assert await deserted_client.control.revoke(call.id, reply=True, timeout=60) == []
    with pytest.raises(ResultTimeout):
        await call.get(timeout=0.1)
    assert call.state == "PENDING"


async def test_with_no_broker_up_commands_fail_in_time() -> None:
    [port] = free_ports(1)
    retries_for_long = {"max_retries": 1000, "interval_start": 0.1, "interval_max": 0.1}
    celery = make_app("down", f"amqp://127.0.0.1:{port}//")
    celery.conf.task_publish_retry_policy = retries_for_long
    async with unconnected(celery, send_timeout=1) as client:
        began = time.monotonic()
        for attempt in (
            client.control.ping(timeout=60),
            client.control.revoke("id"),
            client.control.inspect(timeout=60).stats(),
            client.control.purge(),
        ):
            with pytest.raises(BrokerUnreachable):
                await attempt
        assert time.monotonic() - began < 20


@asynccontextmanager
async def unconnected(celery: Celery, **options: Any) -> AsyncIterator[Client]:
    """Yield a client that is closed in the end, without connecting it first."""
    client = Client(celery, **options)
    try:
        yield client
    finally:
        await client.close()


async def test_replies_that_may_be_lost_with_the_connection_are_not_taken_for_silence(
    app: Celery, rabbitmq: RabbitMQ, worker: Worker
) -> None:
    async with proxy(rabbitmq.port) as between:
        celery = make_app("cut", f"amqp://127.0.0.1:{between.port}//")
        async with Client(celery) as client:
            assert await client.control.ping([worker.name], timeout=60)
            asking = asyncio.create_task(client.control.ping(["nobody@nowhere"], timeout=60))
            await asyncio.sleep(0.3)
            between.cut()
            with pytest.raises(ResultUnavailable, match="lost while replies were awaited"):
                await asyncio.wait_for(asking, 30)
            assert await client.control.ping([worker.name], timeout=60) == [{worker.name: PONG}]


async def test_closing_ends_those_who_ask(app: Celery) -> None:
    client = Client(app)
    asking = asyncio.create_task(client.control.ping(["nobody@nowhere"], timeout=60))
    await asyncio.sleep(0.5)
    await client.close()
    with pytest.raises(ClientClosed, match="closed while replies were awaited"):
        await asking
    with pytest.raises(ClientClosed):
        await client.control.ping()


async def test_a_cancelled_question_leaves_nothing_behind(client: Client) -> None:
    asking = asyncio.create_task(client.control.ping(["nobody@nowhere"], timeout=60))
    await asyncio.sleep(0.3)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert client._sessions.current is not None
    assert not client._sessions.current.replies._waiting


async def test_a_reply_that_cannot_be_read_harms_nobody(
    client: Client, worker: Worker, collected_logs: Callable[[], list[str]]
) -> None:
    await client.control.ping([worker.name], timeout=60)
    mailbox = client._sessions.codec.mailbox

    def publish() -> None:
        with client.app.connection_for_write() as connection:
            connection.Producer().publish(
                b"{",
                exchange="",
                routing_key=mailbox.reply_queue,
                content_type="application/json",
                content_encoding="utf-8",
                headers={"ticket": "x"},
            )

    await asyncio.to_thread(publish)
    assert await client.control.ping([worker.name], timeout=60) == [{worker.name: PONG}]
    assert any("Dropped a reply that can't be read" in line for line in collected_logs())


async def test_a_hundred_questions_open_no_more_channels_than_one(
    rabbitmq: RabbitMQ, client: Client, worker: Worker
) -> None:
    def channels() -> int:
        rows = rabbitmq.names("connections", "channels", "client_properties")
        return sum(int(count) for count, properties in rows if "bridgetask" in properties)

    await client.control.ping([worker.name], timeout=60)
    await client.control.purge()
    before = await asyncio.to_thread(channels)
    for _ in range(100):
        await client.control.ping([worker.name], timeout=60)
    for _ in range(10):
        await client.control.purge()
    assert await asyncio.to_thread(channels) == before


# Revoking.


async def test_several_tasks_are_revoked_with_one_command(client: Client) -> None:
    handles = [client.apply_async(tasks.add, (1, 2), countdown=60) for _ in range(3)]
    await asyncio.gather(*(handle.sent() for handle in handles))
    await client.control.revoke([handle.id for handle in handles])
    for handle in handles:
        with pytest.raises(TaskRevoked):
            await handle


async def test_a_revoked_task_does_not_run(app: Celery, client: Client, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    handle = client.send_task(
        "tests.tasks.ignored", (str(ran),), countdown=0.5, ignore_result=False
    )
    await handle.sent()
    await client.control.revoke(handle.id)
    # Whatever was due after it has run; it has not.
    await client.send_task("tests.tasks.add", (1, 2), countdown=1).get(timeout=20)
    assert not ran.exists()


async def test_a_task_that_still_waits_in_its_queue_resolves_as_revoked(
    client: Client, worker: Worker
) -> None:
    handle = client.apply_async(tasks.add, (1, 2), queue="nobody-consumes-this")
    await handle.sent()
    await client.control.revoke(handle.id)
    with pytest.raises(TaskRevoked):
        await handle.get(timeout=1)


async def test_what_somebody_else_revokes_resolves_when_a_worker_discards_it(
    app: Celery, client: Client
) -> None:
    handle = client.apply_async(tasks.add, (1, 2), countdown=1)
    await handle.sent()
    await asyncio.to_thread(app.control.revoke, handle.id)
    with pytest.raises(TaskRevoked):
        await handle.get(timeout=20)
    assert handle.state == "REVOKED"


async def test_where_some_workers_are_told_the_result_is_left_to_them(
    client: Client, worker: Worker
) -> None:
    told, not_told = (client.apply_async(tasks.add, (1, 2), countdown=1) for _ in range(2))
    await asyncio.gather(told.sent(), not_told.sent())
    await client.control.revoke(told.id, [worker.name])
    await client.control.revoke(not_told.id, ["nobody@nowhere"])
    await client.control.revoke(not_told.id, pattern="nobody*", matcher="glob")
    assert (told.state, not_told.state) == ("PENDING", "PENDING")
    with pytest.raises(TaskRevoked):
        await told.get(timeout=20)
    assert await not_told.get(timeout=20) == 3


async def test_terminating_kills_the_process_that_runs_a_task(client: Client) -> None:
    handle = client.delay(tasks.sleep, 60)
    assert (await anext(handle.updates())).state == "STARTED"
    await client.control.terminate(handle.id, signal="SIGKILL")
    with pytest.raises(TaskRevoked):
        await handle
    assert await client.delay(tasks.add, 1, 1).get(timeout=20) == 2


async def stamped(client: Client, **stamps: Any) -> Any:
    handle = client.apply_async(
        tasks.add, (1, 2), countdown=1.5, stamped_headers=list(stamps), **stamps
    )
    await handle.sent()
    return handle


async def test_tasks_are_revoked_by_their_stamps(client: Client) -> None:
    one, other = await stamped(client, tenant="one"), await stamped(client, tenant="other")
    unstamped = client.apply_async(tasks.add, (1, 2), countdown=1.5)
    await client.control.revoke_by_stamped_headers({"tenant": ["one", "third"]})
    with pytest.raises(TaskRevoked):
        await one.get(timeout=0.5)
    assert (other.state, unstamped.state) == ("PENDING", "PENDING")
    assert await other.get(timeout=20) == await unstamped.get(timeout=20) == 3


async def test_a_task_whose_stamps_somebody_else_revokes_resolves_by_its_worker(
    app: Celery, client: Client
) -> None:
    handle = await stamped(client, region=["north", "south"])
    await asyncio.to_thread(app.control.revoke_by_stamped_headers, {"region": "south"})
    with pytest.raises(TaskRevoked):
        await handle.get(timeout=20)


async def test_a_reply_to_a_revoke_tells_what_the_worker_did(
    client: Client, worker: Worker
) -> None:
    handle = client.apply_async(tasks.add, (1, 2), countdown=60)
    await handle.sent()
    [reply] = await client.control.revoke(handle.id, reply=True, limit=1, timeout=60)
    assert "flagged as revoked" in reply[worker.name]["ok"]
    assert handle.state == "REVOKED"
    [reply] = await client.control.revoke_by_stamped_headers(
        {"nobody": "x"}, terminate=True, reply=True, limit=1, timeout=60
    )
    assert "were not terminated" in reply[worker.name]["ok"]


async def test_a_later_step_of_a_chain_that_is_revoked_by_its_stamp_is_discarded(
    client: Client,
) -> None:
    last = tasks.add.si(2, 2).set(countdown=1, stamped_headers=["step"], step="last")
    handle = client.apply_async(tasks.add.si(1, 1) | last)
    assert await handle.parent == 2
    await client.control.revoke_by_stamped_headers({"step": "last"})
    with pytest.raises(TaskRevoked):
        await handle.get(timeout=20)


# Queues and workers.


async def test_purging_discards_the_tasks_that_wait_and_tells_how_many(
    lonely_client: Client,
) -> None:
    await lonely_client.control.purge()
    calls = [lonely_client.send_task("nobody-runs-this") for _ in range(3)]
    await asyncio.gather(*(call.sent() for call in calls))
    assert await lonely_client.control.purge() == 3
    assert await lonely_client.control.discard_all() == 0


async def test_a_queue_that_is_too_much_for_the_broker_is_refused_by_it(
    broker_url: str,
) -> None:
    from kombu import Queue

    odd = Queue("odd-arguments", queue_arguments={"x-max-priority": -1})
    async with unconnected(make_app("odd", broker_url, task_queues=[odd])) as client:
        with pytest.raises(Exception, match="x-max-priority"):
            await client.control.purge()


async def commanded(client: Client, name: str, *args: Any, **kwargs: Any) -> Any:
    """Give the one worker a command, and return what it says."""
    [reply] = await getattr(client.control, name)(*args, reply=True, limit=1, timeout=60, **kwargs)
    [said] = reply.values()
    return said


async def asked(client: Client, name: str, *args: Any) -> Any:
    """Ask the one worker, and return what it says."""
    answer = await getattr(client.control.inspect(limit=1, timeout=60), name)(*args)
    [said] = answer.values()
    return said


async def test_workers_do_as_they_are_told(spare_client: Client, spare_worker: Worker) -> None:
    said = await commanded(spare_client, "rate_limit", "tests.tasks.add", "100/m")
    assert said == {"ok": "new rate limit set successfully"}
    registered = await asked(spare_client, "registered", "rate_limit")
    assert "tests.tasks.add [rate_limit=100/m]" in registered

    said = await commanded(spare_client, "time_limit", "tests.tasks.add", 7, hard=8)
    assert said == {"ok": "time limits set successfully"}
    registered = await asked(spare_client, "registered", "soft_time_limit", "time_limit")
    assert "tests.tasks.add [soft_time_limit=7 time_limit=8]" in registered

    assert await commanded(spare_client, "add_consumer", "more") == {"ok": "add consumer more"}
    call = spare_client.send_task("tests.tasks.add", (1, 2), queue="more")
    assert await call.get(timeout=30) == 3
    assert "more" in {queue["name"] for queue in await asked(spare_client, "active_queues")}
    await commanded(spare_client, "cancel_consumer", "more")
    async with asyncio.timeout(30):  # the worker answers before it does so
        while "more" in {queue["name"] for queue in await asked(spare_client, "active_queues")}:
            await asyncio.sleep(0.05)

    assert await commanded(spare_client, "pool_grow", 1) == {"ok": "pool will grow"}
    assert await commanded(spare_client, "pool_shrink", 1) == {"ok": "pool will shrink"}
    assert await commanded(spare_client, "pool_restart") == {"ok": "reload started"}
    assert await spare_client.send_task("tests.tasks.add", (1, 2)).get(timeout=60) == 3

    assert await commanded(spare_client, "heartbeat") is None
    assert await spare_client.control.election("id", "topic") is None
    said = await commanded(spare_client, "broadcast", "no_such_command")
    assert "KeyError" in said["error"]


async def test_workers_tell_about_their_tasks(spare_client: Client, spare_worker: Worker) -> None:
    running = spare_client.send_task("tests.tasks.sleep", (3,))
    later = spare_client.send_task("tests.tasks.add", (1, 2), countdown=300)
    await asyncio.gather(running.sent(), later.sent())
    async with asyncio.timeout(30):
        while not (active := await asked(spare_client, "active")):
            await asyncio.sleep(0.05)
        while not (scheduled := await asked(spare_client, "scheduled")):
            await asyncio.sleep(0.05)
    assert active[0]["id"] == running.id
    assert scheduled[0]["request"]["id"] == later.id
    known = await asked(spare_client, "query_task", running.id, later.id)
    assert known[running.id][0] == "active"
    if later.id in known:  # of which workers up to Celery 5.5 do not tell
        assert known[later.id][0] == "scheduled"
    assert isinstance(await asked(spare_client, "reserved"), list)
    await spare_client.control.revoke(later.id)
    assert later.id in await asked(spare_client, "revoked")


async def test_workers_tell_about_themselves(spare_client: Client, spare_worker: Worker) -> None:
    assert "tests.tasks.echo" in await asked(spare_client, "registered_tasks")
    assert "software -> celery" in (await asked(spare_client, "report"))["ok"]
    assert (await asked(spare_client, "conf"))["task_track_started"] is False
    assert len(await asked(spare_client, "conf", True)) > 50
    assert (await asked(spare_client, "clock"))["clock"] > 0
    assert (await asked(spare_client, "hello", "me@here"))["clock"] > 0
    assert (await asked(spare_client, "memsample")).endswith("B")
    assert "rss" in await asked(spare_client, "memdump")
    assert await asked(spare_client, "ping") == PONG
    asking = spare_client.control.inspect(timeout=60)
    assert await asking.ping([spare_worker.name]) == {spare_worker.name: PONG}
    with suppress(TimeoutError):  # needs the library objgraph, and says so
        assert "objgraph" in str(await asked(spare_client, "objgraph", "Request", 1))


async def test_a_worker_scales_its_pool_and_shuts_down(rabbitmq: RabbitMQ) -> None:
    url = rabbitmq.url("per%cent")
    environment = {"BRIDGETASK_TEST_BROKER": url}
    options = ("--autoscale", "2,1")
    with Worker("tests.tasks", environment=environment, name="ends", options=options) as worker:
        async with Client(make_app("ends", url)) as client:
            assert (await asked(client, "stats"))["autoscaler"]["max"] == 2
            await commanded(client, "autoscale", 4, 1)
            assert (await asked(client, "stats"))["autoscaler"]["max"] == 4
            assert await client.control.shutdown([worker.name]) is None
            assert worker._process is not None
            await asyncio.to_thread(worker._process.wait, 30)
            async with asyncio.timeout(30):
                while await client.control.ping(timeout=0.2):
                    pass
