"""What Celery asks of a backend while it sends, where results come by the broker or not at all."""

from __future__ import annotations

from typing import Any, NoReturn

from ..errors import InvalidOption

__all__ = ["RecordingBackend", "refuse_chord"]


class RecordingBackend:
    """The backend of ``rpc://``, and in place of none: it stores nothing."""

    def on_task_call(self, producer: Any, task_id: str) -> None:
        """Do nothing: the transport that receives results makes its own preparations."""

    def ensure_chords_allowed(self) -> None:
        """Refuse a chord, and a group that a task follows, which is one.

        :raises InvalidOption: always.
        """
        refuse_chord()

    def apply_chord(self, header_result_args: Any, body: Any, **options: Any) -> None:
        """Refuse a chord."""
        refuse_chord()


def refuse_chord() -> NoReturn:
    """Refuse a chord.

    :raises InvalidOption: always.
    """
    raise InvalidOption(
        "task",
        "can't be a chord, nor a group that a task follows: only a result backend that can"
        " count its parts runs those, as redis:// does",
    )
