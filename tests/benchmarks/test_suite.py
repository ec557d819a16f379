"""The whole comparison runs in a tiny size, and becomes tables and plots."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import document, harness, suite
from benchmarks.clients import CLIENTS
from benchmarks.goals import figure, goals
from benchmarks.harness import ClientProcess, Failed

#: Enough for every goal, and for a client on Redis alone.
SOME = ("bridgetask", "bridgetask, Twisted on asyncio", "celery", "50 ms poller", "frames")

TINY = replace(
    suite.FAST,
    rounds=1,
    limit=60,
    scale=0.01,
    counts=(1000,),
    levels=(1000, 2000),
    steady_seconds=0.2,
    import_rounds=1,
    clients=SOME,
    report=lambda line: None,
)

pytestmark = pytest.mark.timeout(600)  # it starts some twenty processes


@pytest.fixture(scope="module")
def found(broker_url: str) -> Any:
    """A comparison of some clients, in all settings but one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BRIDGETASK_AMQP_URL", broker_url)
        settings = ("replier, rpc", "replier, redis", "worker, rpc")
        measured = suite.compare(replace(TINY, settings=settings))
    return json.loads(json.dumps(measured))


@pytest.mark.parametrize(
    ("name", "kind"),
    [(name, kind) for name, each in CLIENTS.items() for kind in each.backends if name != "frames"],
)
def test_every_client_makes_a_burst_of_calls(broker_url: str, name: str, kind: str) -> None:
    if not CLIENTS[name].installed:
        pytest.skip(f"{name} is not installed")
    with ExitStack() as stack:
        backend = "rpc://" if kind == "rpc" else stack.enter_context(harness.redis())
        stack.enter_context(harness.replier(broker_url, backend))
        client = ClientProcess(name, broker_url, backend)
        stack.callback(client.kill)
        figures = client.run("burst", count=10, window=5)
    assert figures["count"] == 10
    assert harness.medians([figures])["cpu_us"] > 0


def test_the_clients_do_all_that_they_can(found: dict[str, Any]) -> None:
    for kind in ("rpc", "redis"):
        names = [name for name in SOME if kind in CLIENTS[name].backends]
        measured = found["settings"][f"replier, {kind}"]
        for workload in ("burst_1000", "one_by_one", "large_1kb", "groups", "flood", "steady"):
            does = workload.partition("_")[0] if workload != "one_by_one" else workload
            able = [name for name in names if does not in CLIENTS[name].skips]
            assert list(measured[workload]) == able
            for name in able:
                assert measured[workload][name]["medians"]["cpu_us"] > 0, (workload, name)


def test_only_sending_and_pending_are_measured_once(found: dict[str, Any]) -> None:
    measured = found["settings"]["replier, rpc"]
    assert measured["send"]["frames"]["medians"]["per_second"] > 0
    assert measured["pending"]["bridgetask"]["medians"]["bytes_20"] > 0
    assert "send" not in found["settings"]["replier, redis"]


def test_a_real_worker_answers_too(found: dict[str, Any]) -> None:
    measured = found["settings"]["worker, rpc"]
    assert set(measured) == {"burst_1000", "one_by_one"}
    assert measured["burst_1000"]["bridgetask"]["medians"]["per_second"] > 0


def test_every_goal_is_measured(found: dict[str, Any]) -> None:
    measured = [goal.measured(found) for goal in goals(found)]
    assert len(measured) == 9
    assert None not in measured


def test_the_documentation_is_written_from_the_figures(
    found: dict[str, Any], tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib", reason="of the dependency group benchmarks")
    page = tmp_path / "page.md"
    page.write_text("Before\n<!-- table: goals -->\nold\n<!-- end -->\nAfter\n")
    document.write(found, page, tmp_path)
    first, *lines, last = page.read_text().splitlines()
    assert (first, last) == ("Before", "After")
    assert len(lines) == 2 + 2 + 9
    assert "old" not in lines
    for name in ("round_trips_rpc", "round_trips_redis", "sends", "stalls"):
        assert (tmp_path / f"{name}.svg").read_text().startswith("<?xml")


def test_the_page_shows_every_table(found: dict[str, Any]) -> None:
    page = (Path(__file__).parents[2] / "docs" / "performance.md").read_text()
    for name in document.tables(found):
        assert f"<!-- table: {name} -->" in page


def test_what_would_take_too_long_is_left_out_with_a_word(broker_url: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BRIDGETASK_AMQP_URL", broker_url)
        plan = replace(
            TINY,
            clients=("celery", "floor"),
            settings=("replier, rpc",),
            only=("burst_1000", "flood"),
            limit=1e-6,
            import_rounds=0,
        )
        measured = suite.compare(plan)["settings"]["replier, rpc"]
    assert measured["burst_1000"]["floor"]["medians"]["per_second"] > 0
    assert measured["flood"]["floor"]["left_out"].startswith("would take")
    assert "celery" not in measured["flood"]


def test_a_client_that_fails_is_told_apart(broker_url: str) -> None:
    client = ClientProcess("floor", broker_url)
    with pytest.raises(Failed, match="floor failed at nothing"):
        client.run("nothing")
    client.kill()


def test_goals_know_up_from_down() -> None:
    found: dict[str, Any] = {"levels": [1, 2], "settings": {}}
    sends, cpu = goals(found)[1], goals(found)[0]
    assert sends.measured(found) is None
    assert sends.met(5)
    assert not sends.met(3.9)
    assert cpu.met(1 / 6)
    assert not cpu.met(1 / 4)
    assert figure(found, "replier, rpc", "send", "celery", "cpu_us") is None
