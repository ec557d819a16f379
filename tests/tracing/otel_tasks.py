"""A task that tells which of OpenTelemetry's spans it runs in."""

from __future__ import annotations

from typing import Any

from celery.signals import worker_process_init
from opentelemetry import trace
from opentelemetry.instrumentation.celery import CeleryInstrumentor
from opentelemetry.sdk.trace import TracerProvider

from .apps import make_traced_app

app = make_traced_app(__name__)


@worker_process_init.connect(weak=False)
def instrument(**_: Any) -> None:
    trace.set_tracer_provider(TracerProvider())
    CeleryInstrumentor().instrument()


@app.task
def where() -> dict[str, Any]:
    """Return the name, the trace and the parent of the span that the worker began."""
    span: Any = trace.get_current_span()
    return {
        "name": span.name,
        "trace": span.context.trace_id,
        "parent": span.parent and span.parent.span_id,
    }
