"""Make calls within a span, and print what became of them."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from celery import group
from opentelemetry import trace
from opentelemetry.instrumentation.celery import CeleryInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from bridgetask import Client

from ..blocking import blocking_refused
from .otel_tasks import app, where


async def main() -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    CeleryInstrumentor().instrument()
    seen: dict[str, Any] = {}
    async with Client(app) as client:
        await client.connect()
        with (
            trace.get_tracer("caller").start_as_current_span("request") as request,
            blocking_refused(),
        ):
            call = client.delay(where)
            assert not exporter.get_finished_spans()
            assert trace.get_current_span() is request
            await call.sent()
            (published,) = exporter.get_finished_spans()
            assert published.name == f"apply_async/{where.name}"
            seen["delay"] = [await call]
            seen["send_task"] = [await client.send_task(where.name)]
            seen["at once"] = await asyncio.gather(*(client.delay(where) for _ in range(5)))
            seen["group"] = await client.apply_async(group(where.s() for _ in range(3)))
            chained: Any = client.apply_async(where.si() | where.si())
            seen["chain"] = [await chained.parent, await chained]
            assert trace.get_current_span() is request
    spans = [
        {
            "name": each.name,
            "id": each.context.span_id,
            "parent": each.parent and each.parent.span_id,
            "trace": each.context.trace_id,
            "ended": each.end_time >= each.start_time,
        }
        for each in exporter.get_finished_spans()
    ]
    print(json.dumps({"seen": seen, "spans": spans}))


if __name__ == "__main__":
    asyncio.run(main())
