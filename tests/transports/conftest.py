"""Both ways of messages: past aiormq, and by its own methods."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True, params=["direct", "plain"])
def amqp_path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Make clients take one of the two ways."""
    path: str = request.param
    monkeypatch.setenv("BRIDGETASK_AMQP", path)
    return path
