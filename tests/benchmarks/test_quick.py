"""The benchmarks run, and give figures for every client. How good those are is not tested."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from benchmarks import harness
from benchmarks.clients import CLIENTS
from benchmarks.quick import NAMES, main


def test_quick_compares_all_its_clients(
    broker_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BRIDGETASK_AMQP_URL", broker_url)
    monkeypatch.setattr("sys.argv", ["quick", "--rounds", "1", "--count", "20"])
    main()
    printed = capsys.readouterr().out
    for name in NAMES:
        assert printed.count(f"  {name} ") == 3


@pytest.mark.parametrize("name", sorted(CLIENTS))
def test_every_client_does_every_workload(broker_url: str, name: str) -> None:
    workloads: list[tuple[str, dict[str, Any]]] = [
        ("one_by_one", {"count": 3}),
        ("burst", {"count": 20, "window": 5}),
        ("send", {"count": 20, "window": 5}),
    ]
    with harness.replier(broker_url):
        found = harness.rounds([name], broker_url, workloads, 1)[name]
    for workload, _ in workloads:
        figures = harness.medians(found[workload])
        assert figures["per_second"] > 0
        assert figures["cpu_us"] > 0
    assert harness.medians(found["one_by_one"])["p50_ms"] > 0


async def test_the_ticker_notices_a_stalled_loop() -> None:
    import time

    from benchmarks.clients.serving import Asyncio
    from benchmarks.workloads import Ticker

    async with Ticker(Asyncio()) as ticker:
        await asyncio.sleep(0.01)
        time.sleep(0.05)
        await asyncio.sleep(0.01)
    assert max(ticker.late) > 0.04
    await asyncio.sleep(0)
