"""The apps of traced workers and their callers."""

from __future__ import annotations

import os

from celery import Celery

__all__ = ["make_traced_app"]


def make_traced_app(name: str) -> Celery:
    """Return the current app, which is where OpenTelemetry looks tasks up."""
    app = Celery(name, broker=os.environ["BRIDGETASK_TEST_BROKER"], backend="rpc://")
    app.conf.update(task_default_queue=name, control_exchange=name)
    return app
