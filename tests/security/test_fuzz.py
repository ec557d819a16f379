"""Whatever comes off the wire fails at most its own result: a little of what scripts/fuzz does."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from .targets import TARGETS


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Inputs are made to be complained about."""
    logger = logging.getLogger("bridgetask")
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(logging.NOTSET)


@pytest.mark.parametrize("target", TARGETS)
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.binary(max_size=2000))
@example(data=b"")
def test_whatever_comes_fails_at_most_its_own_result(target: str, data: bytes) -> None:
    TARGETS[target](data)
