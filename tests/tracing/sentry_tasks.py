"""A task that tells which of Sentry's transactions it runs in."""

from __future__ import annotations

from typing import Any

import sentry_sdk
from sentry_sdk.integrations.celery import CeleryIntegration
from sentry_sdk.transport import Transport

from .apps import make_traced_app


class Kept(Transport):
    """Keeps what Sentry would be sent."""

    envelopes: list[Any] = []

    def capture_envelope(self, envelope: Any) -> None:
        self.envelopes.append(envelope)


sentry_sdk.init(
    dsn="http://key@127.0.0.1:1/1",
    transport=Kept,
    traces_sample_rate=1.0,
    default_integrations=False,
    integrations=[CeleryIntegration()],
)
app = make_traced_app(__name__)


@app.task
def where() -> dict[str, Any]:
    """Return the name, the trace and the parent of the transaction that the worker began."""
    transaction: Any = sentry_sdk.get_current_scope().transaction
    return {
        "name": transaction.name,
        "trace": transaction.trace_id,
        "parent": transaction.parent_span_id,
    }
