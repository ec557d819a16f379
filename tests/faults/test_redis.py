"""Results in a Redis that is cut off, frozen, killed, full, or no master any more.

The broker is well in all of these. Both front ends go through most faults together.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from celery import Celery, chord, signature

from bridgetask import BackendUnreachable, Client, ClientClosed, NotSent, ResultTimeout

from ..fix_proxy import Proxy, black_hole
from ..fix_rabbitmq import close_celery, make_app
from ..fix_redis import report
from ..patience import LATE, PATIENCE
from ..redis_servers import Redis, Sentinels
from ..servers import RabbitMQ, Worker, free_ports
from .callers import Caller
from .load import PATIENT, Load

ADD = "tests.tasks.add"
SLEEP = "tests.tasks.sleep"
#: The queue of the worker that stores results in Redis.
QUEUE = "stored"
#: Seconds after which Redis is asked whether it is there, and that it has for each answer.
ASKED_AFTER, ANSWERS_IN = 1.0, 2.0

Callers = Callable[..., list[Caller]]
Storer = Callable[..., Celery]


@pytest.fixture(scope="module")
def store() -> Iterator[Redis]:
    """A server that loses nothing of what it has taken, not even when it is killed."""
    with Redis(config={"appendonly": "yes", "appendfsync": "always"}) as running:
        yield running


@pytest.fixture(scope="module")
def store_worker(node: RabbitMQ, store: Redis) -> Iterator[Worker]:
    """A worker for ``tests.tasks`` on :func:`node`, with results in :func:`store`."""
    environment = {
        "BRIDGETASK_TEST_BROKER": node.url(),
        "BRIDGETASK_TEST_BACKEND": store.url(),
        "BRIDGETASK_TEST_QUEUE": QUEUE,
        "BRIDGETASK_TEST_ALWAYS_RETRY": "1",
    }
    with Worker("tests.tasks", environment=environment, name="stored", concurrency=4) as running:
        yield running


@pytest.fixture
def cable(store: Redis) -> Iterator[Proxy]:
    """A proxy in front of :func:`store`."""
    with Proxy(store.port, protocol="redis") as running:
        yield running


def results_in(port: int, **conf: Any) -> dict[str, Any]:
    """Return settings for results in the Redis at a port."""
    return {
        "result_backend": f"redis://127.0.0.1:{port}",
        "task_default_queue": QUEUE,
        "redis_socket_timeout": ANSWERS_IN,
        "redis_socket_connect_timeout": ANSWERS_IN,
        "redis_backend_health_check_interval": ASKED_AFTER,
        **conf,
    }


@pytest.fixture
def stored(node: RabbitMQ, store: Redis) -> Iterator[Storer]:
    """Return an app of Celery's own, by which results are stored as workers store them."""
    made: list[Celery] = []

    def make(backend: str = "", **conf: Any) -> Celery:
        made.append(make_app("stores", node.url(), backend or store.url(), **conf))
        return made[-1]

    yield make
    for each in made:
        close_celery(each)


async def sent(opened: list[Caller], count: int = 1) -> list[Any]:
    """Return so many calls by each caller, that nobody answers, once they are confirmed."""
    calls_made = [
        calls.send_task("t", queue="nobody-listens") for calls in opened for _ in range(count)
    ]
    await asyncio.gather(*(call.sent() for call in calls_made))
    return calls_made


async def test_mode_1_a_frozen_redis_fails_sends_in_time_and_loses_no_result(
    callers: Callers, node: RabbitMQ, store: Redis, cable: Proxy, stored: Storer
) -> None:
    opened = callers(node.url(), conf=results_in(cable.port, **PATIENT), send_timeout=6)
    pending = await sent(opened)
    cable.stall()
    began = time.monotonic()
    await report(stored(), *(call.id for call in pending), result=1)
    late = [calls.send_task("t", queue="nobody-listens") for calls in opened]
    ignored = [calls.send_task("t", queue="nobody-listens", ignore_result=True) for calls in opened]
    await asyncio.gather(*(call.sent() for call in ignored))
    assert time.monotonic() - began < 6  # what has no result does not wait for Redis
    for call in late:
        with pytest.raises(NotSent) as caught:
            await call.sent()
        assert caught.value.task_id == call.id
    assert time.monotonic() - began < 6 + LATE
    for call in pending:
        with pytest.raises(ResultTimeout):
            await call.get(timeout=0.1)
    cable.restore()
    began = time.monotonic()
    assert await asyncio.gather(*pending) == [1, 1]
    print(f"recovered in {time.monotonic() - began:.1f} s")
    assert time.monotonic() - began < 5 + LATE


@pytest.mark.parametrize("fault", ["refused", "black hole", "silent"])
async def test_mode_3_a_redis_that_cannot_be_connected_to_obeys_one_deadline(
    callers: Callers, node: RabbitMQ, fault: str
) -> None:
    with black_hole() as hole, Proxy(free_ports(1)[0], protocol="redis") as silent:
        silent.stall()
        port = {"refused": free_ports(1)[0], "black hole": hole, "silent": silent.port}[fault]
        opened = callers(node.url(), conf=results_in(port, **PATIENT), send_timeout=2)
        began = time.monotonic()
        for call in [calls.send_task("t", queue="nobody-listens") for calls in opened]:
            with pytest.raises(NotSent):
                await call.sent()
        assert time.monotonic() - began < 2 + LATE
        await asyncio.gather(*(calls.close() for calls in opened))


async def test_mode_4_results_survive_cut_connections(
    callers: Callers, node: RabbitMQ, cable: Proxy, store_worker: Worker
) -> None:
    asyncio.get_running_loop().set_debug(False)  # it makes every step many times as slow
    opened = callers(node.url(), conf=results_in(cable.port, **PATIENT))
    pending = [calls.send_task(SLEEP, (0.002, n)) for calls in opened for n in range(300)]
    answers = asyncio.gather(*pending)
    for _ in range(5):
        await asyncio.sleep(0.3)
        cable.cut()
    assert await answers == [*range(300), *range(300)]


async def test_mode_4_what_is_cut_off_twice_in_a_row_loses_nothing(
    callers: Callers, node: RabbitMQ, cable: Proxy, stored: Storer
) -> None:
    opened = callers(node.url(), conf=results_in(cable.port, **PATIENT))
    earlier = await sent(opened)
    cable.refuse()
    cable.cut()
    await asyncio.sleep(0.2)  # they have tried again in vain, and wait before the next attempt
    cable.restore()
    later = await sent(opened)
    cable.cut()
    pending = [*earlier, *later]
    await report(stored(), *(call.id for call in pending), result=1)
    async with asyncio.timeout(PATIENCE):
        assert await asyncio.gather(*pending) == [1] * 4


async def test_mode_5_killed_and_started_again_under_load_it_loses_nothing(
    callers: Callers, node: RabbitMQ, store: Redis, store_worker: Worker
) -> None:
    asyncio.get_running_loop().set_debug(False)  # it makes every step many times as slow
    opened = callers(node.url(), conf=results_in(store.port, **PATIENT))
    async with Load(opened, ADD) as load:
        await asyncio.to_thread(store.kill)
        await asyncio.sleep(2)
        await asyncio.to_thread(store.start)
        began = time.monotonic()
        await opened[0].send_task(ADD, (1, 1)).sent()  # which waits for the subscription
        print(f"recovered in {time.monotonic() - began:.1f} s")
        assert time.monotonic() - began < PATIENCE
    # The worker has a backlog by now: it stops for a second whenever it finds no Redis.
    answers = await asyncio.gather(*(handle.get(timeout=90) for handle in load.handles))
    assert answers == [number + 1 for number in range(len(answers))]


async def test_mode_7_a_half_open_connection_is_noticed_within_the_health_check(
    callers: Callers, node: RabbitMQ, cable: Proxy, stored: Storer
) -> None:
    opened = callers(node.url(), conf=results_in(cable.port, **PATIENT))
    pending = await sent(opened)
    cable.drop()
    cable.restore()  # new connections get through; those from before are dead, and do not know it
    await report(stored(), *(call.id for call in pending), result=1)
    began = time.monotonic()
    assert await asyncio.gather(*pending) == [1, 1]
    print(f"recovered in {time.monotonic() - began:.1f} s")
    assert time.monotonic() - began < ASKED_AFTER + ANSWERS_IN + 5 + LATE


async def test_mode_8_a_redis_that_answers_slowly_gives_every_answer(
    callers: Callers, node: RabbitMQ, cable: Proxy, store_worker: Worker
) -> None:
    cable.delay(0.3)
    opened = callers(node.url(), conf=results_in(cable.port, **PATIENT))
    pending = [calls.send_task(ADD, (n, 1)) for calls in opened for n in range(100)]
    assert await asyncio.gather(*pending) == [*range(1, 101), *range(1, 101)]


async def test_mode_9_with_its_memory_full_what_needs_none_goes_on(
    callers: Callers, node: RabbitMQ, store: Redis, stored: Storer
) -> None:
    """A chord needs room for its counter: without it, no part of it is sent."""
    opened = callers(node.url(), conf=results_in(store.port, task_default_queue="nobody-listens"))
    pending = await sent(opened)
    ids = [call.id for call in pending]
    await report(stored(), *ids[1:], result=1)
    store.cli("CONFIG", "SET", "maxmemory", "1")
    try:
        assert await pending[1] == 1
        await sent(opened)
        for calls in opened:
            with pytest.raises(NotSent, match="maxmemory"):
                await chord_of(calls).sent()
    finally:
        store.cli("CONFIG", "SET", "maxmemory", "0")
    await report(stored(), *ids[:1], result=0)
    assert await pending[0] == 0
    for calls in opened:
        await chord_of(calls).sent()


def chord_of(calls: Caller) -> Any:
    part = signature("t", app=calls.client.app)
    return calls.client.apply_async(chord([part, part], part, app=calls.client.app))


async def test_a_master_that_became_a_replica_is_waited_for(
    callers: Callers, node: RabbitMQ, own_redis: Redis, stored: Storer
) -> None:
    """It answers READONLY to what is written, until it, or another one, is the master again."""
    conf = results_in(own_redis.port, task_default_queue="nobody-listens", **PATIENT)
    opened = callers(node.url(), conf=conf)
    pending = await sent(opened)
    own_redis.cli("REPLICAOF", "127.0.0.1", str(free_ports(1)[0]))
    held = [chord_of(calls) for calls in opened]
    await asyncio.sleep(1)
    assert not any(each._delivery.done for each in held)
    own_redis.cli("REPLICAOF", "NO", "ONE")
    await asyncio.gather(*(each.sent() for each in held))
    await report(stored(own_redis.url()), *(call.id for call in pending), result=1)
    assert await asyncio.gather(*pending) == [1, 1]


async def test_mode_12_a_loop_blocked_past_the_health_check_loses_nothing(
    callers: Callers, node: RabbitMQ, store: Redis, store_worker: Worker
) -> None:
    opened = callers(node.url(), conf=results_in(store.port), heartbeat=1)
    pending = [calls.send_task(SLEEP, (0.01, n)) for calls in opened for n in range(100)]
    await asyncio.gather(*(call.sent() for call in pending))
    time.sleep(ASKED_AFTER + ANSWERS_IN)
    assert await asyncio.gather(*pending) == [*range(100), *range(100)]


def test_mode_15_a_client_works_inside_a_celery_task(
    node: RabbitMQ, store: Redis, store_worker: Worker
) -> None:
    """The worker's main process imported the module that holds the client, and forked."""
    environment = {
        "BRIDGETASK_TEST_BROKER": node.url(),
        "BRIDGETASK_TEST_BACKEND": store.url(),
        "BRIDGETASK_TEST_QUEUE": QUEUE,
    }
    with Worker(
        "tests.faults.calling_tasks",
        environment=environment,
        name="forked",
        queues=["calling"],
        covered=True,
    ):

        async def main() -> None:
            async with Client(make_app("calls", node.url(), store.url())) as client:
                tasks = [
                    client.send_task("calls_a_task", (number,), queue="calling")
                    for number in range(20)
                ]
                assert await asyncio.gather(*tasks) == [number + 1 for number in range(20)]

        asyncio.run(main())


STATES = ["connecting", "idle", "down", "stalled", "half-open"]


@pytest.mark.parametrize("state", STATES)
async def test_mode_13_closing_ends_in_time_and_says_what_it_abandoned(
    callers: Callers,
    node: RabbitMQ,
    cable: Proxy,
    state: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    if state == "connecting":
        cable.stall()
    # A close that waited for Redis would wait for long.
    conf = results_in(
        cable.port, redis_socket_timeout=20, redis_socket_connect_timeout=20, **PATIENT
    )
    opened = callers(node.url(), conf=conf, close_timeout=1.5)
    before = [] if state == "connecting" else await sent(opened)
    if state == "down":
        cable.refuse()
        cable.cut()
        await asyncio.sleep(0.2)
    elif state == "stalled":
        cable.stall()
    elif state == "half-open":
        cable.drop()
    after = [calls.send_task("t", queue="nobody-listens") for calls in opened]
    await asyncio.sleep(0.3)
    waiting = [asyncio.ensure_future(call.get()) for call in (*before, *after)]
    await asyncio.sleep(0)
    began = time.monotonic()
    await asyncio.gather(*(calls.close() for calls in opened))
    assert time.monotonic() - began < 1.5 + LATE
    for outcome in await asyncio.gather(*waiting, return_exceptions=True):
        assert isinstance(outcome, ClientClosed | NotSent), outcome
    unsent = 0 if state == "idle" else 1
    awaited = 1 if state == "connecting" else 2
    said = f"Closing abandons {unsent} messages without a confirm, and {awaited} awaited results"
    assert caplog.text.count(said) == 2
    cable.heal()
    accepted = cable.accepted
    await asyncio.sleep(0.3)
    assert (cable.open, cable.accepted) == (0, accepted)
    assert "Task was destroyed" not in caplog.text


async def test_mode_16_a_thousand_results_survive_the_loss_of_the_subscription(
    callers: Callers, node: RabbitMQ, store: Redis, stored: Storer
) -> None:
    asyncio.get_running_loop().set_debug(False)  # it makes every step many times as slow
    opened = callers(node.url(), conf=results_in(store.port, **PATIENT))
    pending = await sent(opened, 500)
    answers = asyncio.gather(*pending)
    for start in range(0, 1000, 250):  # each time, half of them get lost with the messages
        store.cli("CLIENT", "KILL", "TYPE", "pubsub")
        await report(stored(), *(call.id for call in pending[start : start + 250]), result=start)
    assert await answers == [number // 250 * 250 for number in range(1000)]


@pytest.mark.parametrize("wait", ["connect", "sent", "get", "refresh", "close"])
async def test_no_call_waits_longer_than_its_deadline(
    callers: Callers, node: RabbitMQ, cable: Proxy, wait: str
) -> None:
    """Redis answers nothing: each call ends by its own deadline, whatever it comes to."""
    conf = results_in(cable.port)
    opened = callers(node.url(), conf=conf, send_timeout=2, close_timeout=1)
    cable.stall()
    began = time.monotonic()
    handles = [calls.send_task("t", queue="nobody-listens") for calls in opened]
    elsewhere = [calls.client.result("sent-elsewhere") for calls in opened]
    waits: dict[str, Callable[[], list[Any]]] = {
        "connect": lambda: [calls.connect() for calls in opened],
        "sent": lambda: [handle.sent() for handle in handles],
        "get": lambda: [handle.get(timeout=0.5) for handle in handles],
        "refresh": lambda: [handle.refresh() for handle in elsewhere],
        "close": lambda: [calls.close() for calls in opened],
    }
    outcomes = await asyncio.gather(*waits[wait](), return_exceptions=True)
    assert time.monotonic() - began < 2 * ANSWERS_IN + LATE
    assert not any(isinstance(each, asyncio.CancelledError) for each in outcomes)
    if wait in {"connect", "refresh"}:
        assert all(isinstance(each, BackendUnreachable) for each in outcomes), outcomes
    await asyncio.gather(*(calls.close() for calls in opened))


@pytest.fixture
async def watched() -> AsyncIterator[Sentinels]:
    """A master, its replica, and sentinels of the test's own."""
    running = Sentinels()
    await asyncio.to_thread(running.__enter__)
    try:
        yield running
    finally:
        await asyncio.to_thread(running.__exit__)


async def test_a_failover_by_sentinels_under_load_loses_nothing_that_is_stored_after_it(
    callers: Callers, node: RabbitMQ, watched: Sentinels, stored: Storer
) -> None:
    """What the old master alone had is lost with it: Redis replicates behind its answers."""
    conf = results_in(
        0,
        result_backend=watched.url,
        result_backend_transport_options={"master_name": watched.name},
        **PATIENT,
    )
    asyncio.get_running_loop().set_debug(False)  # it makes every step many times as slow
    opened = callers(node.url(), conf=conf)
    async with Load(opened, "t", queue="nobody-listens") as load:
        await asyncio.to_thread(watched.master.kill)
        began = time.monotonic()
        while await asyncio.to_thread(watched.masters) != {str(watched.replica.port)}:
            assert time.monotonic() - began < 2 * PATIENCE
            await asyncio.sleep(0.2)
        elected = time.monotonic()
        await opened[0].send_task("t", queue="nobody-listens").sent()
        recovered = time.monotonic() - elected
        print(f"elected in {elected - began:.1f} s, recovered in {recovered:.1f} s")
        assert recovered < PATIENCE
    await asyncio.gather(*(handle.sent() for handle in load.handles))
    assert len(load.handles) > 50
    ids = [handle.id for handle in load.handles]
    await report(stored(watched.replica.url()), *ids, result=1)
    assert set(await asyncio.gather(*load.handles)) == {1}
