"""When to try again what failed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .errors import InvalidOption

__all__ = ["RetryPolicy"]


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When to try again, as Celery's retry policies say it; intervals in seconds.

    What a policy does not say, is as kombu's ``Connection.ensure`` has it.
    """

    max_retries: int | None = None
    interval_start: float = 1.0
    interval_step: float = 1.0
    interval_max: float = 1.0
    #: Seconds after which no retry follows, or None. Celery has it for its Redis backend alone.
    timeout: float | None = None

    @classmethod
    def from_mapping(cls, policy: Mapping[str, Any]) -> RetryPolicy:
        """Build a policy from Celery's mapping; keys that steer kombu's own loop are left out."""
        known: dict[str, Any] = {}
        for key in cls.__slots__:
            if key in policy:
                value = known[key] = policy[key]
                optional = key in {"max_retries", "timeout"}
                if not (optional and value is None) and not isinstance(value, (int, float)):
                    raise InvalidOption("retry_policy", f"{key} must be a number, not {value!r}")
        return cls(**known)

    def allows(self, retries: int, elapsed: float = 0.0) -> bool:
        """Return whether another retry may follow after ``retries`` of them, in so many seconds."""
        if self.timeout and elapsed > self.timeout:
            return False
        return self.max_retries is None or retries < self.max_retries

    def interval(self, retries: int) -> float:
        """Return how many seconds to wait before the retry that follows ``retries`` others."""
        return min(self.interval_start + self.interval_step * retries, self.interval_max)
