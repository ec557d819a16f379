from __future__ import annotations

import asyncio
import logging
import socket
import time
from typing import Any
from uuid import uuid4

import pytest
from redis.credentials import CredentialProvider

from bridgetask import BackendError, BackendRefused, BackendUnreachable, Client, NotSent

from ...fakes import proxy
from ...fix_redis import AppFactory, report
from ...patience import LATE, PATIENCE, until
from ...redis_servers import Redis, Sentinels
from .test_results import IMPATIENT


async def exchanges(store_app: AppFactory, backend: str, **conf: Any) -> None:
    """Store results by Celery's own client, and get them by ours, read and announced."""
    celery, task_id = store_app(backend, **conf), str(uuid4())
    await report(celery, task_id, result=1)
    async with Client(celery) as client:
        assert await client.result(task_id).get(timeout=10) == 1
        call = client.send_task("t")
        await call.sent()
        await report(celery, call.id, result=2)
        assert await call.get(timeout=10) == 2


async def refused(store_app: AppFactory, backend: str, **conf: Any) -> BackendError:
    """Return what connecting fails with; sending, and asking for a result, fail with the same."""
    celery = store_app(backend, result_backend_transport_options=IMPATIENT, **conf)
    client = Client(celery, send_timeout=10)
    try:
        with pytest.raises(BackendError) as connecting:
            await client.connect()
        with pytest.raises(NotSent, match="was not sent") as sending:
            await asyncio.wait_for(client.send_task("t"), PATIENCE)
        assert isinstance(sending.value.__cause__, BackendError)
        with pytest.raises(type(connecting.value)):
            await asyncio.wait_for(client.result("unknown").get(), PATIENCE)
        return connecting.value
    finally:
        await client.close()


class Provider(CredentialProvider):
    def __init__(self, *credentials: str) -> None:
        self._credentials = credentials

    def get_credentials(self) -> Any:
        time.sleep(0.01)  # as those do that ask a service for a token
        return self._credentials


async def test_databases_are_told_apart(store_app: AppFactory, redis_server: Redis) -> None:
    await exchanges(store_app, redis_server.url(db=3))
    assert redis_server.cli("-n", "3", "DBSIZE") != "0"


async def test_a_unix_socket_connects(store_app: AppFactory, redis_server: Redis) -> None:
    await exchanges(store_app, f"redis+socket://{redis_server.socket}?virtual_host=2")


@pytest.mark.parametrize(
    "conf",
    [
        {"redis_username": "alice", "redis_password": "al1ces-r3dis"},
        {"redis_backend_credential_provider": Provider("alice", "al1ces-r3dis")},
    ],
    ids=["settings", "provider"],
)
async def test_an_acl_user_logs_in_by_settings(
    store_app: AppFactory, redis_server: Redis, conf: dict[str, Any]
) -> None:
    celery = store_app(f"redis://127.0.0.1:{redis_server.port}", **conf)
    if "redis_backend_credential_provider" in conf and not hasattr(
        celery._get_backend(), "failure_expires"
    ):
        pytest.skip("Celery 5.5 knows no credential provider")
    await exchanges(store_app, f"redis://127.0.0.1:{redis_server.port}", **conf)


def client_with(store_app: AppFactory, server: Redis, provider: Provider) -> Client:
    """Return a client that asks a credential provider for its login."""
    conf = {"redis_backend_credential_provider": provider}
    celery = store_app(f"redis://127.0.0.1:{server.port}", **conf)
    if not hasattr(celery._get_backend(), "failure_expires"):
        pytest.skip("Celery 5.5 knows no credential provider")
    return Client(celery)


async def test_a_credential_provider_that_fails_for_once_is_asked_again(
    store_app: AppFactory, redis_server: Redis
) -> None:
    class Unsteady(Provider):
        asked = 0

        def get_credentials(self) -> tuple[str, str]:
            self.asked += 1
            if self.asked == 1:
                raise LookupError("the service that gives tokens is down")
            return super().get_credentials()

    client = client_with(store_app, redis_server, Unsteady("alice", "al1ces-r3dis"))
    try:
        await client.send_task("t").sent()
    finally:
        await client.close()


async def test_what_a_credential_provider_says_when_it_fails_is_not_told(
    store_app: AppFactory, redis_server: Redis
) -> None:
    class Telling(Provider):
        def get_credentials(self) -> tuple[str, str]:
            raise LookupError("no token for s3cr3t p@ss/word")

    client = client_with(store_app, redis_server, Telling("alice", "al1ces-r3dis"))
    try:
        with pytest.raises(BackendUnreachable, match=r"LookupError while asking for the password$"):
            await client.connect()
    finally:
        await client.close()


async def test_an_acl_user_logs_in_by_url(store_app: AppFactory, redis_server: Redis) -> None:
    await exchanges(store_app, redis_server.url(user="alice", password="al1ces-r3dis"))


@pytest.mark.parametrize(
    ("user", "password"), [("alice", "wr0ng"), ("nobody", "wr0ng"), ("", "wr0ng")]
)
async def test_a_wrong_password_is_refused_and_shown_nowhere(
    store_app: AppFactory,
    redis_server: Redis,
    caplog: pytest.LogCaptureFixture,
    user: str,
    password: str,
) -> None:
    caplog.set_level(logging.DEBUG)
    error = await refused(store_app, redis_server.url(user=user, password=password))
    assert isinstance(error, BackendRefused)
    assert str(redis_server.port) in str(error)
    assert password not in str(error)
    assert password not in caplog.text


async def test_a_database_that_does_not_exist_is_refused(
    store_app: AppFactory, redis_server: Redis
) -> None:
    error = await refused(store_app, redis_server.url(db=99))
    assert "DB index is out of range" in str(error) or "Invalid Database" in str(error)


async def test_a_redis_without_pub_sub_refuses_the_call(
    store_app: AppFactory, redis_server: Redis
) -> None:
    async with Client(store_app(redis_server.url(user="deaf", password="d3afs-r3dis"))) as client:
        with pytest.raises(NotSent, match="refused SUBSCRIBE") as sending:
            await asyncio.wait_for(client.send_task("t"), PATIENCE)
        assert isinstance(sending.value.__cause__, BackendRefused)
        handle = client.result("x")
        for _ in range(2):
            with pytest.raises(BackendRefused, match="refused SUBSCRIBE"):
                await asyncio.wait_for(handle.get(), PATIENCE)
        assert await client.send_task("t", ignore_result=True) is None


async def test_a_redis_that_is_down_fails_in_bounded_time(store_app: AppFactory) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        began = time.monotonic()
        error = await refused(store_app, f"redis://127.0.0.1:{nobody.getsockname()[1]}")
        assert isinstance(error, BackendUnreachable)
        assert time.monotonic() - began < 10


async def test_a_redis_that_swallows_all_fails_in_bounded_time(
    store_app: AppFactory, redis_server: Redis
) -> None:
    async with proxy(redis_server.port) as cable:
        cable.mute = True
        began = time.monotonic()
        error = await refused(
            store_app, f"redis://:pw@127.0.0.1:{cable.port}/1", redis_socket_connect_timeout=0.3
        )
        assert "no answer in time" in str(error)
        assert time.monotonic() - began < 15


async def test_a_redis_that_has_no_memory_left_refuses_what_is_written(
    store_app: AppFactory, own_redis: Redis
) -> None:
    celery = store_app(own_redis.url())
    async with Client(celery) as client:
        own_redis.cli("CONFIG", "SET", "maxmemory", "1")
        session: Any = client._sessions.current
        writes = client._sessions.codec.recorder.record_writes(
            lambda each: each.set_chord_size("g", 2)
        )
        with pytest.raises(BackendRefused, match="maxmemory"):
            await session.store.write(writes)
        own_redis.cli("CONFIG", "SET", "maxmemory", "0")
        await session.store.write(writes)


async def test_messages_without_a_result_pass_those_that_wait_for_redis(
    store_app: AppFactory, own_redis: Redis
) -> None:
    celery = store_app(
        own_redis.url(),
        task_publish_retry_policy={"max_retries": None, "interval_start": 0.2, "interval_max": 0.2},
    )
    async with Client(celery) as client:
        await asyncio.to_thread(own_redis.stop)
        waiting = [client.send_task("t") for _ in range(20)]
        ignored = [client.send_task("t", ignore_result=True) for _ in range(20)]
        await asyncio.wait_for(asyncio.gather(*ignored), PATIENCE)
        await asyncio.sleep(0.5)
        assert not any(call._delivery is not None and call._delivery.done for call in waiting)
        await asyncio.to_thread(own_redis.start)
        await asyncio.wait_for(asyncio.gather(*(call.sent() for call in waiting)), PATIENCE)
        await report(celery, *(call.id for call in waiting), result=1)
        assert await asyncio.gather(*waiting) == [1] * 20


async def test_what_waits_for_redis_is_settled_when_the_client_closes(
    store_app: AppFactory, own_redis: Redis
) -> None:
    celery = store_app(own_redis.url(), task_publish_retry_policy={"max_retries": None})
    client = Client(celery, close_timeout=1)
    await client.connect()
    await asyncio.to_thread(own_redis.stop)
    call = client.send_task("t")
    await asyncio.sleep(0.3)
    began = time.monotonic()
    await client.close()
    assert time.monotonic() - began < 1 + LATE
    with pytest.raises(Exception, match="closed"):
        await call


async def test_sentinels_name_the_master_before_and_after_a_failover(
    store_app: AppFactory, sentinels: Sentinels
) -> None:
    celery = store_app(
        sentinels.url, result_backend_transport_options={"master_name": sentinels.name}
    )
    async with Client(celery) as client:
        calls = [client.send_task("t") for _ in range(10)]
        await asyncio.gather(*(call.sent() for call in calls))
        await report(celery, calls[0].id, result=0)
        assert await calls[0].get(timeout=10) == 0
        waiting = asyncio.gather(*calls[1:])
        await asyncio.to_thread(sentinels.master.stop)
        await until(lambda: sentinels.masters() == {str(sentinels.replica.port)})
        await report(celery, *(call.id for call in calls[1:]), result=1)
        assert await asyncio.wait_for(waiting, PATIENCE) == [1] * 9
        last = client.send_task("t")
        await last.sent()
        await report(celery, last.id, result=2)
        assert await last.get(timeout=10) == 2


async def test_sentinels_that_do_not_know_the_master_are_an_error(
    store_app: AppFactory, sentinels: Sentinels
) -> None:
    celery = store_app(sentinels.url, result_backend_transport_options={"master_name": "another"})
    client = Client(celery)
    with pytest.raises(BackendUnreachable, match="No master found"):
        await client.connect()
    await client.close()
