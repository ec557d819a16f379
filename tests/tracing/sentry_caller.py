"""Make calls within a transaction, and print what became of them."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import sentry_sdk
from celery import group

from bridgetask import Client

from ..blocking import blocking_refused
from .sentry_tasks import Kept, app, where


async def main() -> None:
    seen: dict[str, Any] = {}
    async with Client(app) as client:
        await client.connect()
        with (
            sentry_sdk.start_transaction(name="request", op="test") as request,
            blocking_refused(),
        ):
            seen["delay"] = [await client.delay(where)]
            seen["send_task"] = [await client.send_task(where.name)]
            seen["at once"] = await asyncio.gather(*(client.delay(where) for _ in range(5)))
            seen["group"] = await client.apply_async(group(where.s() for _ in range(3)))
            chained: Any = client.apply_async(where.si() | where.si())
            seen["chain"] = [await chained.parent, await chained]
            assert sentry_sdk.get_current_span() is request
    (transaction,) = filter(None, (each.get_transaction_event() for each in Kept.envelopes))
    spans = [
        {
            "name": transaction["transaction"],
            "op": "test",
            "id": transaction["contexts"]["trace"]["span_id"],
            "parent": None,
            "trace": transaction["contexts"]["trace"]["trace_id"],
            "ended": True,
        }
    ] + [
        {
            "name": each["description"],
            "op": each["op"],
            "id": each["span_id"],
            "parent": each["parent_span_id"],
            "trace": each["trace_id"],
            "ended": each["timestamp"] is not None,
        }
        for each in transaction["spans"]
    ]
    print(json.dumps({"seen": seen, "spans": spans}))


if __name__ == "__main__":
    asyncio.run(main())
