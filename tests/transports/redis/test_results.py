from __future__ import annotations

import asyncio
import gc
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any
from uuid import uuid4

import pytest
from celery import Celery, chord, group

from bridgetask import (
    AsyncResult,
    BackendUnreachable,
    Client,
    ResultTimeout,
    ResultUnavailable,
    ResultUndecodable,
)

from ...fakes import proxy
from ...fix_redis import AppFactory, report, with_celerys_backend
from ...patience import PATIENCE, until
from ...redis_servers import Redis

#: Celery's retry policy of a backend, short enough for a test.
IMPATIENT = {"retry_policy": {"max_retries": 2, "interval_start": 0.1, "interval_max": 0.1}}


def subscriptions(client: Client) -> int:
    """Return how many channels the client is subscribed to, as far as it knows."""
    session: Any = client._sessions.current
    subscriber = session._results._subscriber
    return len(subscriber._subscribed) if subscriber is not None else 0


@asynccontextmanager
async def given_up_on(
    store_app: AppFactory, server: Redis, options: dict[str, Any] = IMPATIENT
) -> AsyncIterator[tuple[Celery, AsyncResult[Any]]]:
    """Yield an app and the handle of a result that was given up on: the server is down."""
    celery = store_app(server.url(), result_backend_transport_options=options)
    async with Client(celery) as client:
        call = client.send_task("t")
        await call.sent()
        await asyncio.to_thread(server.stop)
        with pytest.raises(BackendUnreachable, match=str(server.port)):
            await asyncio.wait_for(call.get(), PATIENCE)
        yield celery, call


class TestWorker:
    """With a worker that stores results."""

    async def test_values_exceptions_and_every_state_arrive(self, redis_app: Celery) -> None:
        async with Client(redis_app) as client:
            assert await client.send_task("tests.tasks.add", (1, 2)) == 3
            with pytest.raises(ValueError, match="no"):
                await client.send_task("tests.tasks.fail", ("ValueError", "no"))
            call = client.send_task("tests.tasks.progress", (3,))
            states = [(update.state, update.result) async for update in call.updates()]
            assert states[0][0] == "STARTED"
            assert states[1:] == [
                *(("PROGRESS", {"step": step}) for step in range(3)),
                ("SUCCESS", 3),
            ]

    async def test_chains_give_the_results_of_all_their_steps(self, redis_app: Celery) -> None:
        add = redis_app.signature("tests.tasks.add", (1, 2))
        async with Client(redis_app) as client:
            call = client.apply_async(add | redis_app.signature("tests.tasks.add", (10,)))
            assert await call == 13
            assert call.parent is not None
            assert await call.parent == 3

    @pytest.mark.parametrize("ordered", [True, False])
    async def test_chords_run(self, redis_app: Celery, ordered: bool) -> None:
        redis_app.conf.result_backend_transport_options = {"result_chord_ordered": ordered}
        sign = redis_app.signature
        header = [sign("tests.tasks.add", (number, number)) for number in range(5)]
        echo = sign("tests.tasks.echo")
        async with Client(redis_app) as client:
            call = client.apply_async(chord(header, echo, app=redis_app))
            (values,), _ = await call.get(timeout=PATIENCE)
            assert sorted(values) == [0, 2, 4, 6, 8]
            assert call.parent is not None
            assert await call.parent == [0, 2, 4, 6, 8]
            nested = group(chord(header[:2], echo, app=redis_app), header[2], app=redis_app) | sign(
                "tests.tasks.echo"
            )
            (values,), _ = await client.apply_async(nested).get(timeout=PATIENCE)
            assert values == [[[[0, 2]], {}], 4]
            with pytest.raises(ValueError):  # what a parent raised, as in Celery
                failing = chord([header[0], sign("tests.tasks.fail")], echo, app=redis_app)
                await client.apply_async(failing).get(timeout=PATIENCE)

    async def test_children_can_be_awaited(self, redis_app: Celery) -> None:
        async with Client(redis_app) as client:
            call = client.send_task("tests.tasks.call_from_task")
            child_id = await call
            assert call.children is not None
            (child,) = call.children
            assert child.id == child_id
            assert await child.get(timeout=PATIENCE) == 2
            assert [value async for _, value in call.collect()] == [child_id, 2]

    async def test_a_task_without_a_result_gives_none(self, redis_app: Celery) -> None:
        async with Client(redis_app) as client:
            call = client.send_task("tests.tasks.add", (1, 2), ignore_result=True)
            assert await call is None
            assert subscriptions(client) == 0

    async def test_a_thousand_tasks_cost_few_commands_and_two_connections(
        self, redis_app: Celery, redis_server: Redis
    ) -> None:
        def calls() -> dict[str, int]:
            rows = redis_server.cli("INFO", "commandstats").splitlines()
            return {
                row.partition(":")[0].removeprefix("cmdstat_"): int(
                    row.partition("calls=")[2].partition(",")[0]
                )
                for row in rows
                if "calls=" in row
            }

        asyncio.get_running_loop().set_debug(False)
        subscribed = redis_server.clients("pubsub")
        async with Client(redis_app) as client:
            await client.send_task("tests.tasks.add", (0, 0))
            before = calls()
            handles = [client.send_task("tests.tasks.add", (number, 1)) for number in range(1000)]
            assert redis_server.clients("pubsub") == subscribed + 1
            assert await asyncio.gather(*handles) == list(range(1, 1001))
            after = calls()
        spent = {name: after[name] - before.get(name, 0) for name in ("subscribe", "mget")}
        spent["unsubscribe"] = after.get("unsubscribe", 0) - before.get("unsubscribe", 0)
        assert sum(spent.values()) < 300, spent


class TestStored:
    """With results that another process stores."""

    async def test_what_was_stored_before_is_read(self, store_app: AppFactory) -> None:
        celery, task_id = store_app(), str(uuid4())
        await report(celery, task_id, result={"a": [1]})
        async with Client(celery) as client:
            handle = client.result(task_id)
            assert (handle.state, handle.result) == ("PENDING", None)
            assert await handle.get(timeout=PATIENCE) == {"a": [1]}
            assert handle.successful()

    async def test_what_is_stored_later_arrives(self, store_app: AppFactory) -> None:
        celery, task_id = store_app(), str(uuid4())
        async with Client(celery) as client:
            first, second = (client.result(task_id).get(timeout=PATIENCE) for _ in range(2))
            waiting = asyncio.gather(first, second)
            await until(lambda: subscriptions(client) == 1)
            await report(celery, task_id, result=7)
            assert await waiting == [7, 7]

    async def test_a_stored_failure_is_raised(self, store_app: AppFactory) -> None:
        celery, task_id = store_app(), str(uuid4())
        await report(celery, task_id, result=KeyError("k"), state="FAILURE")
        async with Client(celery) as client:
            with pytest.raises(KeyError):
                await client.result(task_id)

    async def test_an_unknown_task_is_pending(self, store_app: AppFactory) -> None:
        async with Client(store_app()) as client:
            handle = client.result("nobody-sent-this")
            with pytest.raises(ResultTimeout):
                await handle.get(timeout=0.2)
            assert handle.state == "PENDING"
            assert await handle.exists() is False

    async def test_a_timeout_of_zero_asks_what_is_there(self, store_app: AppFactory) -> None:
        celery, task_id = store_app(), str(uuid4())
        async with Client(celery) as client:
            with pytest.raises(ResultTimeout):
                await client.result(task_id).get(timeout=0)
            await report(celery, task_id, result=1)
            assert await client.result(task_id).get(timeout=0) == 1

    async def test_updates_of_a_task_sent_elsewhere_begin_with_what_is_stored(
        self, store_app: AppFactory
    ) -> None:
        celery, task_id = store_app(), str(uuid4())
        await report(celery, task_id, result={"step": 1}, state="PROGRESS")
        async with Client(celery) as client:
            updates = client.result(task_id).updates()
            assert (await anext(updates)).result == {"step": 1}
            await report(celery, task_id, result={"step": 2}, state="PROGRESS")
            await report(celery, task_id, result="done")
            assert [update.result async for update in updates] == [{"step": 2}, "done"]

    @pytest.mark.parametrize(
        ("state", "result"), [("SUCCESS", "done"), ("FAILURE", ValueError("no")), ("REVOKED", "")]
    )
    async def test_updates_of_a_task_that_has_ended_are_its_final_one(
        self, store_app: AppFactory, state: str, result: Any
    ) -> None:
        celery, task_id = store_app(), str(uuid4())
        await report(celery, task_id, result={"step": 1}, state="PROGRESS")
        await report(celery, task_id, result=result, state=state)
        async with Client(celery) as client, asyncio.timeout(20):
            for handle in (client.result(task_id), client.result(task_id)):
                updates, more = handle.updates(), handle.updates()
                assert [update.state async for update in updates] == [state]
                assert [update.state async for update in more] == [state]
            again = client.result(task_id).updates()  # nobody holds the handle
            assert [update.state async for update in again] == [state]

    async def test_updates_of_a_call_that_has_ended_and_whose_handle_is_gone(
        self, redis_app: Celery
    ) -> None:
        async with Client(redis_app) as client, asyncio.timeout(20):
            call = client.send_task("tests.tasks.progress", (1,))
            assert await call == 1
            task_id = call.id
            del call
            gc.collect()
            updates = client.result(task_id).updates()
            assert [(update.state, update.result) async for update in updates] == [("SUCCESS", 1)]

    async def test_updates_raise_that_what_is_stored_cannot_be_read(
        self, store_app: AppFactory
    ) -> None:
        celery, task_id = store_app(), str(uuid4())

        def spoil(backend: Any) -> None:
            backend.client.set(backend.get_key_for_task(task_id), b"{")

        await with_celerys_backend(celery, spoil)
        async with Client(celery) as client, asyncio.timeout(20):
            with pytest.raises(ResultUndecodable):
                await anext(client.result(task_id).updates())

    async def test_members_of_a_group_that_have_ended_complete_by_id(
        self, redis_app: Celery
    ) -> None:
        parts = [redis_app.signature("tests.tasks.add", (number, 1)) for number in range(3)]
        async with Client(redis_app) as client:
            sent = client.apply_async(group(parts, app=redis_app))
            await sent
            await sent.save()
        async with Client(redis_app) as client, asyncio.timeout(20):
            stored = await client.group_result(sent.id)
            assert sorted([await member async for member in stored.as_completed()]) == [1, 2, 3]

    async def test_refresh_reads_again_and_repeats_nothing(self, store_app: AppFactory) -> None:
        celery, task_id = store_app(), str(uuid4())
        async with Client(celery) as client:
            handle = client.result(task_id)
            assert await handle.refresh() is None
            await report(celery, task_id, result={"step": 1}, state="PROGRESS")
            for _ in range(3):
                update = await handle.refresh()
                assert update is not None
                assert update.state == "PROGRESS"
            assert len(handle._outcome.history) == 1
            await report(celery, task_id, result=5)
            await handle.refresh()
            assert handle.ready()
            assert await handle == 5

    async def test_forget_deletes_what_is_stored(self, store_app: AppFactory) -> None:
        celery, task_id = store_app(), str(uuid4())
        await report(celery, task_id, result=5)
        async with Client(celery) as client:
            handle = client.result(task_id)
            assert await handle.exists() is True
            await handle.forget()
            assert await handle.exists() is False
            with pytest.raises(ResultUnavailable, match="forgotten"):
                await handle
            assert subscriptions(client) == 0

    async def test_forget_deletes_what_the_steps_of_a_chain_have_stored(
        self, store_app: AppFactory
    ) -> None:
        celery = store_app()
        sign = celery.signature
        async with Client(celery) as client:
            handle = client.apply_async(sign("t") | sign("t") | sign("t"))
            steps = [client.result(task_id) for task_id in handle.as_list()]
            assert len(steps) == 3
            for step in steps:
                await report(celery, step.id, result=1)
            await handle.forget()
            assert not any([await step.exists() for step in steps])

    async def test_a_result_that_is_here_can_be_forgotten(self, store_app: AppFactory) -> None:
        celery, task_id = store_app(), str(uuid4())
        await report(celery, task_id, result=5)
        async with Client(celery) as client:
            handle = client.result(task_id)
            assert await handle == 5
            await handle.forget()
            assert not handle.ready()
            with pytest.raises(ResultUnavailable, match="forgotten"):
                await handle

    async def test_content_that_is_not_accepted_fails_its_own_result_only(
        self, store_app: AppFactory
    ) -> None:
        celery = store_app()
        bad, good = str(uuid4()), str(uuid4())
        pickling = store_app(result_serializer="pickle", accept_content=["json", "pickle"])
        await report(pickling, bad, result=1)
        await report(celery, good, result=2)
        async with Client(celery) as client:
            with pytest.raises(ResultUndecodable):
                await client.result(bad)
            assert await client.result(good) == 2
            announced = client.send_task("t")
            again = client.send_task("t", task_id=bad)  # what is stored is not of this one
            await asyncio.gather(announced.sent(), again.sent())
            await report(pickling, announced.id, result=3)
            with pytest.raises(ResultUndecodable):
                await announced
            with pytest.raises(ResultTimeout):
                await again.get(timeout=0.3)

    async def test_what_is_stored_under_any_key_can_be_read(self, store_app: AppFactory) -> None:
        celery, task_id = store_app(), str(uuid4())
        await report(celery, task_id, result=3)
        async with Client(celery) as client:
            session: Any = client._sessions.current
            key = client._sessions.codec.recorder.backend.get_key_for_task(task_id)
            assert b"SUCCESS" in await session.store.read(key)
            assert await session.store.read(b"nothing") is None

    @pytest.mark.parametrize(
        "conf",
        [
            {"result_serializer": "pickle", "accept_content": ["json", "pickle"]},
            {"result_serializer": "yaml", "result_accept_content": ["yaml"]},
            {"result_serializer": "msgpack", "result_accept_content": ["msgpack"]},
            {"result_compression": "gzip"},
            {"result_extended": True},
            {"result_backend_transport_options": {"global_keyprefix": "mine"}},
            {"result_backend_transport_options": {"global_keyprefix": "mine:"}},
            {"result_expires": None},
            {"result_expires": 60},
        ],
        ids=str,
    )
    async def test_results_are_found_and_read_as_celery_is_configured(
        self, store_app: AppFactory, conf: dict[str, Any]
    ) -> None:
        celery = store_app(**conf)
        before, after = str(uuid4()), str(uuid4())
        await report(celery, before, result=[1, "ü"])
        async with Client(celery) as client:
            assert await client.result(before).get(timeout=PATIENCE) == [1, "ü"]
            waiting = asyncio.ensure_future(client.result(after).get(timeout=PATIENCE))
            await until(lambda: subscriptions(client) == 1)
            await report(celery, after, result=ValueError("v"), state="FAILURE")
            with pytest.raises(ValueError, match="v"):
                await waiting

    async def test_what_celery_reads_is_what_celery_itself_would_read(
        self, store_app: AppFactory
    ) -> None:
        celery, task_id = store_app(result_extended=True), str(uuid4())
        await report(celery, task_id, result=1)
        theirs = await with_celerys_backend(celery, lambda each: each.get_task_meta(task_id))
        async with Client(celery) as client:
            update = await client.result(task_id).refresh()
            assert update is not None
            assert update.meta == theirs

    async def test_an_id_that_is_used_again_gives_a_success_that_is_there_already(
        self, store_app: AppFactory
    ) -> None:
        """A worker stores nothing over a success, and announces nothing, either."""
        celery = store_app()
        done, failed = str(uuid4()), str(uuid4())
        await report(celery, done, result="earlier")
        await report(celery, failed, result=ValueError("earlier"), state="FAILURE")
        async with Client(celery) as client:
            assert await client.send_task("t", task_id=done).get(timeout=PATIENCE) == "earlier"
            again = client.send_task("t", task_id=failed)
            await again.sent()
            with pytest.raises(ResultTimeout):
                await again.get(timeout=0.3)
            await report(celery, failed, result="now")
            assert await again.get(timeout=PATIENCE) == "now"

    async def test_nothing_is_subscribed_to_that_nobody_waits_for(
        self, store_app: AppFactory, redis_server: Redis
    ) -> None:
        celery = store_app()
        channels = redis_server.cli("PUBSUB", "CHANNELS").splitlines()
        async with Client(celery) as client:
            handles = [client.send_task("t") for _ in range(20)]
            await asyncio.gather(*(handle.sent() for handle in handles))
            assert subscriptions(client) == 20
            await report(celery, *(handle.id for handle in handles[:10]), result=1)
            assert await asyncio.gather(*handles[:10]) == [1] * 10
            del handles[10:]
            gc.collect()
            await until(lambda: subscriptions(client) == 0)
            await until(lambda: redis_server.cli("PUBSUB", "CHANNELS").splitlines() == channels)
            session: Any = client._sessions.current
            assert len(session._results._watches) == 0


async def test_a_task_under_the_id_of_an_earlier_one_is_sent_though_its_result_is_there(
    store_app: AppFactory,
) -> None:
    """As Celery does, which gives that result, too: a signature that is frozen may be applied
    again."""
    celery, task_id = store_app(), str(uuid4())
    queue = f"again-{task_id}"
    await report(celery, task_id, result=1)

    def length() -> int:
        with celery.connection_for_write() as connection:
            count: int = connection.default_channel.queue_declare(queue, passive=True).message_count
            connection.default_channel.queue_delete(queue)
            return count

    async with Client(celery) as client:
        call = client.send_task("t", task_id=task_id, queue=queue)
        assert await call.get(timeout=PATIENCE) == 1
        await call.sent()
    assert await asyncio.to_thread(length) == 1


class TestTrouble:
    """With a connection, or a server, that goes away."""

    async def test_a_thousand_results_survive_the_loss_of_the_subscription(
        self, store_app: AppFactory, redis_server: Redis
    ) -> None:
        celery = store_app()
        asyncio.get_running_loop().set_debug(False)
        async with Client(celery, send_timeout=60) as client:
            handles = [client.send_task("t") for _ in range(1000)]
            await asyncio.gather(*(handle.sent() for handle in handles))
            waiting = asyncio.gather(*handles)
            for start in range(0, 1000, 250):  # each time, half of them get lost with the messages
                ids = [handle.id for handle in handles[start : start + 250]]
                redis_server.cli("CLIENT", "KILL", "TYPE", "pubsub")
                await report(celery, *ids, result=start)
            answers = await asyncio.wait_for(waiting, PATIENCE)
            assert answers == [n // 250 * 250 for n in range(1000)]
            await client.send_task("t").sent()  # else nothing need be subscribed to by now
            assert redis_server.clients("pubsub") == 1

    async def test_a_subscription_that_is_lost_again_during_recovery_is_made_again(
        self, store_app: AppFactory, redis_server: Redis
    ) -> None:
        celery = store_app()
        async with Client(celery) as client:
            call = client.send_task("t")
            await call.sent()
            session: Any = client._sessions.current
            results = session._results
            read = results._read
            reads = 0

            async def read_and_lose(task_ids: list[str], **options: Any) -> None:
                nonlocal reads
                reads += 1
                await read(task_ids, **options)
                if reads == 1:
                    # In a thread: this runs within the client, which may not block the loop.
                    await asyncio.to_thread(redis_server.cli, "CLIENT", "KILL", "TYPE", "pubsub")
                    await until(lambda: results._subscriber is None)

            results._read = read_and_lose
            redis_server.cli("CLIENT", "KILL", "TYPE", "pubsub")
            await until(lambda: reads == 2 and results._recovery is None)
            await report(celery, call.id, result=1)
            assert await call.get(timeout=PATIENCE) == 1

    async def test_a_read_that_fails_for_whatever_reason_is_tried_again(
        self, store_app: AppFactory, collected_logs: Any
    ) -> None:
        celery = store_app()
        async with Client(celery) as client:
            await client.connect()
            task_id = str(uuid4())
            await report(celery, task_id, result=1)
            session: Any = client._sessions.current
            results = session._results
            read = results._read

            async def fail(*_: Any, **__: Any) -> None:
                results._read = read
                raise RuntimeError("a mistake of ours")

            results._read = fail
            call = client.send_task("t", task_id=task_id)
            assert await call.get(timeout=PATIENCE) == 1
        assert [line for line in collected_logs() if "Reading from Redis failed" in line]

    async def test_results_survive_a_restart_of_the_server(
        self, store_app: AppFactory, own_redis: Redis
    ) -> None:
        celery = store_app(own_redis.url())
        async with Client(celery) as client:
            call = client.send_task("t")
            await call.sent()
            waiting = asyncio.ensure_future(call.get(timeout=PATIENCE))
            await asyncio.to_thread(own_redis.stop)
            await asyncio.sleep(1)
            assert not waiting.done()
            await asyncio.to_thread(own_redis.start)
            await report(celery, call.id, result=1)
            assert await waiting == 1

    async def test_a_result_is_given_up_on_by_celerys_retry_policy_and_can_be_asked_for_again(
        self, store_app: AppFactory, own_redis: Redis
    ) -> None:
        async with given_up_on(store_app, own_redis) as (celery, call):
            with pytest.raises(BackendUnreachable):  # it is still down
                await asyncio.wait_for(call.get(), PATIENCE)
            await asyncio.to_thread(own_redis.start)
            await report(celery, call.id, result="stored meanwhile")
            assert await call.get(timeout=PATIENCE) == "stored meanwhile"

    async def test_a_result_is_given_up_on_after_the_time_that_the_retry_policy_gives(
        self, store_app: AppFactory, own_redis: Redis
    ) -> None:
        policy = {"max_retries": None, "interval_max": 0.1, "timeout": 0.5}
        async with given_up_on(store_app, own_redis, {"retry_policy": policy}) as (celery, call):
            await asyncio.to_thread(own_redis.start)
            await report(celery, call.id, result="stored meanwhile")
            assert await call.get(timeout=PATIENCE) == "stored meanwhile"

    async def test_an_earlier_failure_under_the_same_id_is_not_taken_for_this_tasks(
        self, store_app: AppFactory, redis_server: Redis
    ) -> None:
        soon, late = ({"max_retries": None, "interval_max": each} for each in (0.05, 1))
        task_id = str(uuid4())
        await report(store_app(), task_id, result=KeyError("earlier"), state="FAILURE")
        async with proxy(redis_server.port) as cable:
            celery = store_app(
                f"redis://127.0.0.1:{cable.port}",
                result_backend_transport_options={"retry_policy": soon},
                task_publish_retry_policy=late,  # what is stored is read before it is sent
            )
            async with Client(celery) as client:
                cable.refuse = True
                cable.cut()
                call = client.send_task("t", task_id=task_id)
                session: Any = client._sessions.current
                await until(lambda: session._results._watches.unread)
                cable.refuse = False
                await call.sent()
                await report(celery, task_id, result=1)
                assert await call.get(timeout=PATIENCE) == 1

    async def test_all_who_wait_for_a_step_of_a_chain_may_go_on_when_it_was_given_up_on(
        self, store_app: AppFactory, own_redis: Redis
    ) -> None:
        celery = store_app(own_redis.url(), result_backend_transport_options=IMPATIENT)
        async with Client(celery) as client:
            call = client.apply_async(celery.signature("t") | celery.signature("t"))
            await call.sent()

            async def patiently() -> Any:
                while True:
                    with suppress(BackendUnreachable):
                        return await call.get()

            waiting = asyncio.gather(patiently(), patiently())
            await asyncio.to_thread(own_redis.stop)
            await asyncio.sleep(1)
            assert not waiting.done()
            await asyncio.to_thread(own_redis.start)
            await report(celery, call.id, result=1)
            assert await asyncio.wait_for(waiting, PATIENCE) == [1, 1]

    async def test_a_result_that_was_given_up_on_is_watched_for_again_once_it_is_refreshed(
        self, store_app: AppFactory, own_redis: Redis
    ) -> None:
        async with given_up_on(store_app, own_redis) as (celery, call):
            await asyncio.to_thread(own_redis.start)
            assert await call.refresh() is None
            waiting = asyncio.ensure_future(call.get(timeout=PATIENCE))
            await report(celery, call.id, result=1)
            assert await waiting == 1

    async def test_a_half_open_connection_is_noticed(
        self, store_app: AppFactory, redis_server: Redis
    ) -> None:
        async with proxy(redis_server.port) as cable:
            celery = store_app(
                f"redis://127.0.0.1:{cable.port}",
                redis_socket_timeout=0.5,
                redis_backend_health_check_interval=0.3,
            )
            async with Client(celery) as client:
                call = client.send_task("t")
                await call.sent()
                waiting = asyncio.ensure_future(call.get(timeout=PATIENCE))
                cable.mute = True
                await report(store_app(redis_server.url()), call.id, result=1)
                await until(lambda: subscriptions(client) == 0)
                cable.mute = False
                assert await waiting == 1

    async def test_cancelling_never_gives_anybody_the_answer_to_another_question(
        self, store_app: AppFactory, redis_server: Redis
    ) -> None:
        celery = store_app()
        ids = [str(uuid4()) for _ in range(100)]
        for number, task_id in enumerate(ids):
            await report(celery, task_id, result=number)
        chance = random.Random(17)
        async with proxy(redis_server.port) as cable:
            cable.delay = 0.1
            async with Client(store_app(f"redis://127.0.0.1:{cable.port}")) as client:

                async def ask(number: int) -> int:
                    handle = client.result(ids[number])
                    waiting = asyncio.ensure_future(handle.get(timeout=PATIENCE))
                    await asyncio.sleep(chance.random() * 0.3)
                    if chance.random() < 0.5 and waiting.cancel():
                        await asyncio.wait([waiting])
                        return -1
                    assert await waiting == number
                    return number

                answers = await asyncio.gather(*(ask(number) for number in range(100)))
                assert answers.count(-1) > 10
                for number in range(0, 100, 10):
                    assert await client.result(ids[number]).get(timeout=PATIENCE) == number
            assert cable.accepted == 2

    async def test_a_result_that_is_too_large_to_be_announced_arrives(
        self, store_app: AppFactory, own_redis: Redis
    ) -> None:
        """Redis drops the connection of a subscriber whose messages need too large a buffer."""
        own_redis.cli("CONFIG", "SET", "client-output-buffer-limit", "pubsub 1mb 1mb 1")
        celery = store_app(own_redis.url())
        async with Client(celery) as client:
            large, small = client.send_task("t"), client.send_task("t")
            await asyncio.gather(large.sent(), small.sent())
            waiting = asyncio.gather(large.get(timeout=PATIENCE), small.get(timeout=PATIENCE))
            await report(celery, large.id, result="x" * 8_000_000)
            await report(celery, small.id, result=1)
            assert await waiting == ["x" * 8_000_000, 1]

    async def test_closing_a_client_fails_those_who_wait(
        self, store_app: AppFactory, redis_server: Redis
    ) -> None:
        async with Client(store_app()) as client:
            waiting = [
                asyncio.ensure_future(client.result(str(uuid4())).get()),
                asyncio.ensure_future(client.send_task("t").get()),
            ]
            await until(lambda: subscriptions(client) == 2)
        for each in waiting:
            assert (await asyncio.wait_for(asyncio.wait([each]), PATIENCE))[0]
            assert type(each.exception()).__name__ == "ClientClosed"
        assert redis_server.clients("pubsub") == 0


async def test_handles_of_one_task_are_equal(store_app: AppFactory) -> None:
    async with Client(store_app()) as client:
        assert client.result("x") == client.result("x")
        assert isinstance(client.result("x"), AsyncResult)
