"""The app whose task all clients call, and the queues that it goes to."""

from __future__ import annotations

from typing import Any

__all__ = ["HELD", "PARKED", "QUEUE", "SINK", "TASK", "make_app"]

#: The queue that the replier, or the worker, answers.
QUEUE = "bench"
#: The queue that the replier answers once it is told to.
HELD = "bench.held"
#: The queue of what is never answered.
PARKED = "bench.parked"
#: The queue of what is only sent.
SINK = "bench.sink"
TASK = "bench.add"


def make_app(url: str, backend: str) -> Any:
    """Return a Celery app, configured as any other."""
    from celery import Celery

    app = Celery("bench", broker=url, backend=backend)
    app.conf.task_default_queue = QUEUE
    return app
