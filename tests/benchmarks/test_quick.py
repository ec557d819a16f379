"""The quick benchmark gives figures for its clients. How good those are is not tested."""

from __future__ import annotations

import asyncio
import time

import pytest

from benchmarks.clients.serving import Asyncio
from benchmarks.quick import NAMES, main
from benchmarks.workloads import Ticker


def test_quick_compares_all_its_clients(
    broker_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BRIDGETASK_AMQP_URL", broker_url)
    monkeypatch.setattr("sys.argv", ["quick", "--rounds", "1", "--count", "20"])
    main()
    printed = capsys.readouterr().out
    for name in NAMES:
        assert printed.count(f"  {name} ") == 3


async def test_the_ticker_notices_a_stalled_loop() -> None:
    async with Ticker(Asyncio()) as ticker:
        await asyncio.sleep(0.01)
        time.sleep(0.05)
        await asyncio.sleep(0.01)
    assert max(ticker.late) > 0.04
    await asyncio.sleep(0)
