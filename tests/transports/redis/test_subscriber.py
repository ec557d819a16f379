from __future__ import annotations

import asyncio
from dataclasses import replace

from bridgetask.transports.redis.connection import RedisConnector
from bridgetask.transports.redis.errors import RedisError
from bridgetask.transports.redis.settings import RedisSettings
from bridgetask.transports.redis.subscriber import RedisSubscriber

from ...fakes import proxy
from ...fix_rabbitmq import make_app
from ...patience import PATIENCE
from ...redis_servers import Redis


async def test_answers_are_not_missed_while_messages_are_held_back(redis_server: Redis) -> None:
    async with proxy(redis_server.port) as cable:
        app = make_app("subscriber", "amqp://", f"redis://127.0.0.1:{cable.port}")
        server = replace(RedisSettings.from_app(app).server, answer_timeout=0.3)
        held = asyncio.Event()
        lost: list[RedisError] = []

        def hold(channel: bytes, payload: bytes) -> None:
            subscriber.hold()
            held.set()

        stream = await RedisConnector(server).open()
        subscriber = RedisSubscriber(stream, server, hold, hold, lost.append)
        subscriber.subscribe(b"held")
        await subscriber.confirmed()
        await asyncio.to_thread(redis_server.cli, "PUBLISH", "held", "x")
        await held.wait()
        subscriber.subscribe(b"new")
        await asyncio.sleep(0.8)
        assert lost == []
        subscriber.release()
        await asyncio.wait_for(subscriber.confirmed(), PATIENCE)

        cable.mute = True  # now it is the server that says nothing
        subscriber.subscribe(b"unanswered")
        async with asyncio.timeout(PATIENCE):
            while not lost:
                await asyncio.sleep(0.01)
        subscriber.abort()
