"""Observes what Celery's code reads, and what it gives to kombu, while it makes a message."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .message import OutgoingMessage

__all__ = ["Observations", "Published", "current_observations", "observing"]


@dataclass(frozen=True, slots=True)
class Published:
    """What kombu was asked to publish, and the message that it made of it."""

    message: OutgoingMessage
    body: Any
    serializer: str | None
    compression: str | None
    #: Queues and exchanges to declare.
    entities: tuple[Any, ...]


@dataclass(slots=True)
class Observations:
    """What Celery's code did while it was observed."""

    #: Settings that it read, with their values.
    settings: dict[str, Any] = field(default_factory=dict)
    #: Queues and exchanges that it routed messages to.
    destinations: list[Any] = field(default_factory=list)
    published: list[Published] = field(default_factory=list)


_current: ContextVar[Observations | None] = ContextVar("observations", default=None)

#: Return where to note what Celery's code does in this context; None where nobody observes it.
current_observations: Callable[[], Observations | None] = _current.get


@contextmanager
def observing() -> Iterator[Observations]:
    """Note what Celery's code does inside, in this context alone."""
    observations = Observations()
    token = _current.set(observations)
    try:
        yield observations
    finally:
        _current.reset(token)
