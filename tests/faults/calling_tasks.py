"""A worker's module that holds a client, whose task calls another one."""

from __future__ import annotations

import asyncio

from bridgetask import Client

from ..tasks import app

client = Client(app)


@app.task(name="calls_a_task")
def calls_a_task(number: int) -> int:
    async def call() -> int:
        answer: int = await client.send_task("tests.tasks.add", (number, 1))
        return answer

    return asyncio.run(call())
