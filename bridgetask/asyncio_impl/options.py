"""The options of a client, checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..errors import InvalidOption
from .handle import OnCancel

__all__ = ["ClientOptions", "checked_on_cancel"]


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """The options of a client; see :class:`bridgetask.Client`.

    :raises InvalidOption: naming the option that can't be used.
    """

    send_timeout: float
    close_timeout: float
    on_cancel: OnCancel
    heartbeat: float | None
    max_in_flight: int
    max_queued: int
    max_result_size: int

    def __post_init__(self) -> None:
        for name in ("send_timeout", "close_timeout"):
            seconds = getattr(self, name)
            if not isinstance(seconds, (int, float)) or seconds <= 0:
                raise InvalidOption(name, f"must be a positive number of seconds, not {seconds!r}")
        beat = self.heartbeat
        if beat is not None and (not isinstance(beat, (int, float)) or beat < 0):
            raise InvalidOption(
                "heartbeat", f"must be a number of seconds, 0 for never, or None, not {beat!r}"
            )
        for name in ("max_in_flight", "max_queued"):
            number = getattr(self, name)
            if not isinstance(number, int) or number < 1:
                raise InvalidOption(name, f"must be a positive whole number, not {number!r}")
        checked_on_cancel(self.on_cancel)
        size = self.max_result_size
        if not isinstance(size, int) or size <= 0:
            raise InvalidOption(
                "max_result_size", f"must be a positive number of bytes, not {size!r}"
            )


def checked_on_cancel(value: Any) -> OnCancel:
    """Return ``value`` if it is an ``on_cancel``.

    :raises InvalidOption: it is something else.
    """
    if value not in (None, "revoke", "terminate"):
        raise InvalidOption("on_cancel", f"must be None, 'revoke' or 'terminate', not {value!r}")
    checked: OnCancel = value
    return checked
