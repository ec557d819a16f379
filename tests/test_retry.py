from __future__ import annotations

import inspect

import pytest
from kombu import Connection

from bridgetask import InvalidOption
from bridgetask.retry import RetryPolicy


def test_a_retry_policy_counts_and_waits_as_celerys_does() -> None:
    policy = RetryPolicy.from_mapping(
        {"max_retries": 2, "interval_start": 1, "interval_step": 2, "interval_max": 4}
    )
    assert [policy.interval(retries) for retries in range(4)] == [1, 3, 4, 4]
    assert [policy.allows(retries) for retries in range(4)] == [True, True, False, False]
    forever = RetryPolicy.from_mapping({"max_retries": None})
    assert forever.allows(1_000_000)
    short = RetryPolicy.from_mapping({"timeout": 5})
    assert [short.allows(1_000, seconds) for seconds in (4.9, 5.1)] == [True, False]


def test_what_a_retry_policy_does_not_say_is_as_kombu_has_it() -> None:
    ensure = inspect.signature(Connection.ensure).parameters
    policy = RetryPolicy.from_mapping({})
    for name in ("max_retries", "interval_start", "interval_step", "interval_max"):
        assert getattr(policy, name) == ensure[name].default


def test_a_bad_retry_policy_is_refused() -> None:
    with pytest.raises(InvalidOption, match="retry_policy: interval_max must be a number"):
        RetryPolicy.from_mapping({"interval_max": "soon"})
