"""What builds the messages of an app's calls, without a client."""

from __future__ import annotations

from celery import Celery

from bridgetask.transports.plugs import Plugs
from bridgetask.wire.recorder import Recorder

__all__ = ["recorder_for"]


def recorder_for(app: Celery, reply_to: str) -> Recorder:
    """Return the recorder that a client of this app would use."""
    return Plugs.of(app).codec(reply_to).recorder
