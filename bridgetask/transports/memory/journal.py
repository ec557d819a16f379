"""What was sent to the worker in this process, for tests to look at."""

from __future__ import annotations

from dataclasses import dataclass, field

from ...errors import SendError
from .worker import SentTask

__all__ = ["Journal"]


@dataclass(slots=True)
class Journal:
    """What was sent, for tests to look at, and what sending fails with."""

    sent: list[SentTask] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    send_error: SendError | None = None
