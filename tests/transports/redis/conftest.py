"""Redis is the same whichever way messages go to RabbitMQ."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def amqp_path() -> None:
    """Take one way alone."""
