"""When to try again what failed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .errors import InvalidOption

__all__ = ["RetryPolicy"]


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When to publish again, as Celery's retry policies say it; intervals in seconds."""

    max_retries: int | None = 3
    interval_start: float = 0.0
    interval_step: float = 0.2
    interval_max: float = 1.0

    @classmethod
    def from_mapping(cls, policy: Mapping[str, Any]) -> RetryPolicy:
        """Build a policy from Celery's mapping; keys that steer kombu's own loop are left out."""
        known: dict[str, Any] = {}
        for key in cls.__slots__:
            value = policy.get(key, getattr(_DEFAULT_RETRY, key))
            optional = key == "max_retries"
            if not (optional and value is None) and not isinstance(value, (int, float)):
                raise InvalidOption("retry_policy", f"{key} must be a number, not {value!r}")
            known[key] = value
        return cls(**known)

    def allows(self, retries: int) -> bool:
        """Return whether another retry may follow after ``retries`` of them."""
        return self.max_retries is None or retries < self.max_retries

    def interval(self, retries: int) -> float:
        """Return how many seconds to wait before the retry that follows ``retries`` others."""
        return min(self.interval_start + self.interval_step * retries, self.interval_max)


_DEFAULT_RETRY = RetryPolicy()
