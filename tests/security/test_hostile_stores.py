"""A Redis that others may write into: each thing they write fails its own result at most."""

from __future__ import annotations

import asyncio
import json
import pickle
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import redis
from kombu.serialization import dumps

from bridgetask import Client, ResultUndecodable

from ..fix_redis import AppFactory
from ..redis_servers import Redis
from . import inputs
from .test_hostile_messages import success
from .test_signing import environment, signed_app

__all__ = ["environment", "signed_app"]

Write = Callable[[str, bytes], Awaitable[None]]


@pytest.fixture
async def client(store_app: AppFactory, own_redis: Redis) -> AsyncIterator[Client]:
    async with Client(store_app(own_redis.url()), max_result_size=100_000) as opened:
        yield opened


@pytest.fixture(params=["published", "stored"])
def write(request: pytest.FixtureRequest, client: Client, own_redis: Redis) -> Write:
    """Announces a result, or stores it and lets it be read."""
    return writes(client, own_redis, request.param)


def writes(client: Client, server: Redis, way: str) -> Write:
    async def write(task_id: str, payload: bytes) -> None:
        key = client._sessions.codec.recorder.backend.get_key_for_task(task_id)

        def send() -> None:
            with redis.Redis.from_url(server.url()) as other:
                if way == "published":
                    assert other.publish(key, payload) == 1
                else:
                    other.set(key, payload)

        await asyncio.to_thread(send)
        if way == "stored":
            await client.result(task_id).refresh()

    return write


HOSTILE = {
    "noise": b"\xff\x00",
    "nothing": b"",
    "pickle": pickle.dumps({"task_id": "t", "status": "SUCCESS", "result": inputs.Payload()}),
    "nested too deeply": b"[" * 100_000,
    "a huge number": b'{"status":"SUCCESS","result":' + b"9" * 10_000 + b"}",
    "too large": success("t", "x" * 200_000),
    "compressed by nobody knows what": b"\0celery-compressed\0\xff\xfe\0x",
    "no exception": json.dumps(
        {"status": "FAILURE", "result": {"exc_module": "os", "exc_type": "system"}}
    ).encode(),
}


@pytest.mark.parametrize("payload", HOSTILE.values(), ids=HOSTILE)
async def test_what_cannot_be_read_fails_its_own_result(
    client: Client, write: Write, payload: bytes
) -> None:
    spoilt, fine = (client.send_task("nothing") for _ in range(2))
    await spoilt.sent()
    await fine.sent()
    await write(spoilt.id, payload)
    with pytest.raises(ResultUndecodable):
        await spoilt.get(timeout=10)
    await write(fine.id, success(fine.id))
    assert await fine.get(timeout=10) == "fine"
    assert not inputs.executed


@pytest.mark.parametrize("way", ["published", "stored"])
async def test_an_unsigned_result_in_redis_is_refused_and_a_signed_one_taken(
    signed_app: Any, own_redis: Redis, way: str
) -> None:
    signed_app.conf.result_backend = own_redis.url()
    signed_app.backend_cls = own_redis.url()
    async with Client(signed_app) as client:
        write = writes(client, own_redis, way)
        handles = [client.send_task("nobody.runs.this", queue="unsigned") for _ in range(2)]
        for handle in handles:
            await handle.sent()
        unsigned, signed = handles
        await write(unsigned.id, success(unsigned.id))
        with pytest.raises(ResultUndecodable):
            await unsigned.get(timeout=20)
        meta = {"task_id": signed.id, "status": "SUCCESS", "result": "fine", "children": []}
        _, _, body = dumps(meta, serializer="auth")
        await write(signed.id, body if isinstance(body, bytes) else body.encode())
        assert await signed.get(timeout=20) == "fine"
