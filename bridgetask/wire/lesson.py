"""What Celery's code asks for, and hands to kombu, while it makes one message."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .message import OutgoingMessage

__all__ = ["Lesson", "Published", "current_lesson"]


@dataclass(slots=True)
class Published:
    """What kombu was asked to publish, and the message that it made of it."""

    message: OutgoingMessage
    body: Any
    serializer: str | None
    compression: str | None
    #: Queues and exchanges to declare.
    entities: tuple[Any, ...]


@dataclass(slots=True)
class Lesson:
    """Takes notes while Celery's code runs."""

    #: Settings that were read, with their values.
    settings: dict[str, Any] = field(default_factory=dict)
    published: list[Published] = field(default_factory=list)


#: Who takes notes in this context, if anybody does.
current_lesson: ContextVar[Lesson | None] = ContextVar("current_lesson", default=None)
