"""What builds the messages of an app's calls, without a client."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from celery import Celery

from bridgetask.transports.plugs import Plugs
from bridgetask.wire.recorder import Recorder

__all__ = ["recorder_for"]


def recorder_for(app: Celery, reply_to: str, *, clock: Callable[[], float] = monotonic) -> Recorder:
    """Return the recorder that a client of this app would use."""
    return Plugs.of(app).recorder(reply_to, clock=clock)
