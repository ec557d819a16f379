"""The plugin, on a few tests of Celery's suite; scripts/conformance runs all of it."""

from __future__ import annotations

from pathlib import Path

import celery
import pytest

from ..redis_servers import Redis
from ..servers import RabbitMQ
from .suite import PROJECT, fetch, run_file


@pytest.mark.timeout(300)
def test_celerys_own_canvas_tests_go_through_bridgetask(
    rabbitmq: RabbitMQ, redis_server: Redis, tmp_path: Path
) -> None:
    if celery.VERSION < (5, 6):
        pytest.importorskip("pytest_subtests", reason="Celery's suite of that time needs it")
    outcomes = run_file(
        fetch(PROJECT / ".conformance"),
        "test_canvas.py",
        "bridgetask",
        broker=rabbitmq.url("plain"),  # on its own: the suite's queue has the default name
        redis=redis_server.url(),
        results=tmp_path,
        selection=["-k", "test_complex_chain or test_nested_chord_group_chain_group_tail"],
    )
    log = (tmp_path / "test_canvas.log").read_text()
    assert [test["outcome"] for test in outcomes.values()] == ["passed", "passed"], log
    in_chain, in_chord = outcomes.values()
    assert in_chain["routed"]["_chain.apply_async"] == 1
    assert in_chain["routed"]["ResultSet.join_native"] == 1
    assert in_chord["routed"]["_chord.apply_async"] == 1
    assert in_chord["routed"]["AsyncResult.get"] == 1
    for test in outcomes.values():
        assert test["past"] == {}
