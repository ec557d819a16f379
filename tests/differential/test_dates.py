"""Dates and delays, in all forms, under all settings of the time zone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from .comparison import NOW, Options
from .conftest import MakeDifferential

_NAIVE = datetime(2030, 3, 10, 2, 30)  # an hour that is skipped in New York
_EAST = timezone(timedelta(hours=5, minutes=45))
#: Moments, in the forms that an option may have.
MOMENTS: list[Any] = [
    NOW + timedelta(hours=1, microseconds=1),
    (NOW + timedelta(hours=1)).astimezone(_EAST),
    (NOW + timedelta(days=120)).astimezone(ZoneInfo("America/New_York")),
    NOW - timedelta(days=1),
    _NAIVE,
    _NAIVE.isoformat(),
    "2030-03-01",
    datetime(2030, 7, 1, tzinfo=UTC).isoformat(),
    "2030-03-01T20:00:00+05:45",
    "2030-03-01T20:00:00Z",
    "tomorrow",
    _NAIVE.date(),
]
SECONDS: list[Any] = [0, 1, 3600, 0.001, 1e6, -1, -(2**40), 1e300, True, timedelta(seconds=5)]


def dates() -> list[Options]:
    """Return options that say when."""
    return [
        *({"eta": each} for each in MOMENTS),
        *({"expires": each} for each in (*MOMENTS, *SECONDS)),
        *({"countdown": each} for each in SECONDS),
        {"countdown": 10, "eta": NOW + timedelta(hours=1)},
        {"countdown": 10, "expires": 60},
        {"eta": _NAIVE.isoformat(), "expires": _NAIVE},
    ]


@pytest.mark.parametrize("protocol", [1, 2])
@pytest.mark.parametrize("enable_utc", [True, False])
@pytest.mark.parametrize("zone", [None, "UTC", "Asia/Kolkata", "America/New_York"])
def test_dates_are_the_same(
    differential: MakeDifferential, zone: str | None, enable_utc: bool, protocol: int
) -> None:
    compared = differential(timezone=zone, enable_utc=enable_utc, task_protocol=protocol)
    for options in dates():
        compared.compare_task("plain", **options)
        compared.compare_task(compared.app.tasks["options"], **options)
