from __future__ import annotations

import gc
import logging
import threading
import traceback
import tracemalloc

import pytest

from bridgetask import ClientClosed, ResultUndecodable, TaskUpdate
from bridgetask.core import early
from bridgetask.core.outcomes import Outcome, PendingResults


def test_an_outcome_lives_as_long_as_somebody_holds_it() -> None:
    results = PendingResults()
    outcome = results.register("t")
    assert results.register("t") is outcome
    assert (len(results), results.unfinished) == (1, 1)
    del outcome
    gc.collect()
    assert len(results) == 0


def test_another_thread_may_register_while_all_are_looked_at() -> None:
    results = PendingResults()
    held = [results.register(str(number)) for number in range(20_000)]
    registering = threading.Thread(
        target=lambda: held.extend(results.register(f"more {number}") for number in range(40_000))
    )
    registering.start()
    while registering.is_alive():
        assert results.unfinished >= 20_000
    registering.join()
    assert results.unfinished == 60_000


def test_a_linked_task_may_be_asked_for_just_as_it_reports() -> None:
    results = PendingResults()
    outcomes: list[Outcome] = []
    asking = threading.Thread(target=lambda: outcomes.append(results.register("child")))
    keep = results._early.keep

    def keep_while_it_is_asked_for(update: TaskUpdate, size: int) -> None:
        asking.start()
        asking.join(0.2)
        keep(update, size)

    results._early.keep = keep_while_it_is_asked_for  # type: ignore[method-assign]
    results.deliver(TaskUpdate("child", "SUCCESS", 2, parent_id="t"), size=10)
    asking.join()
    assert outcomes[0].final is not None
    assert results._early._size == 0


def test_results_of_linked_tasks_may_come_in_any_order() -> None:
    results = PendingResults()
    results.deliver(TaskUpdate("grandchild", "STARTED", parent_id="child"))
    results.deliver(TaskUpdate("grandchild", "SUCCESS", 3, parent_id="child"))
    results.deliver(TaskUpdate("child", "SUCCESS", 2, parent_id="t"))
    outcome = results.register("t")
    results.deliver(TaskUpdate("t", "SUCCESS", 1))
    assert outcome.final is not None
    child, grandchild = results.register("child"), results.register("grandchild")
    assert child.final is not None
    assert child.final.result == 2
    assert [each.state for each in grandchild.history] == ["STARTED", "SUCCESS"]
    assert not results._early


async def test_an_error_that_many_wait_for_does_not_grow() -> None:
    results = PendingResults()
    outcomes = [results.register(str(number)) for number in range(10)]
    error = ClientClosed("closed")
    results.fail_all(error)
    lengths = []
    for outcome in outcomes:
        with pytest.raises(ClientClosed) as caught:
            await outcome.wait()
        lengths.append(len(list(traceback.walk_tb(caught.value.__traceback__))))
    assert len(set(lengths)) == 1


def test_what_nobody_asks_for_is_kept_within_bounds() -> None:
    results = PendingResults()
    for number in range(early._TASKS + 10):
        results.deliver(TaskUpdate(str(number), "SUCCESS", parent_id="t"))
        results.deliver(TaskUpdate(f"no parent {number}", "SUCCESS"))
    assert len(results._early) == early._TASKS
    assert results.register("5").final is None
    assert results.register("15").final is not None


def test_updates_of_one_task_that_nobody_asks_for_are_kept_within_bounds() -> None:
    results = PendingResults()
    for number in range(early._UPDATES + 10):
        results.deliver(TaskUpdate("t", "PROGRESS", number, parent_id="p"))
    assert len(results.register("t").history) == early._UPDATES
    for _ in range(10):
        results.deliver(TaskUpdate("ended", "SUCCESS", parent_id="p"))
    assert len(results._early._kept["ended"]) == 1


def test_bytes_of_what_nobody_asks_for_are_kept_within_bounds() -> None:
    results = PendingResults()
    for number in range(10):
        results.deliver(TaskUpdate(str(number), "SUCCESS", parent_id="p"), early._BYTES // 4)
    assert len(results._early) == 4
    assert results.register("9").final is not None
    assert results._early._size == early._BYTES // 4 * 3
    results.deliver(TaskUpdate("huge", "SUCCESS", parent_id="p"), early._BYTES + 1)
    assert (len(results._early), results._early._size) == (0, 0)


def test_a_flood_of_messages_for_nobody_takes_no_memory_and_few_lines_of_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    results = PendingResults()
    gc.collect()
    tracemalloc.start()
    try:
        for number in range(20_000):
            results.deliver(TaskUpdate(f"unknown {number}", "SUCCESS", number))
            results.deliver_undecodable(ResultUndecodable("broken", task_id=f"unknown {number}"))
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 100_000
    assert len(caplog.records) == 10


def test_what_is_logged_of_a_hostile_id_is_one_short_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    results = PendingResults()
    hostile = "\n2026-01-01 CRITICAL forged\x1b[2J\ud800" + "x" * 10_000
    results.deliver_undecodable(ResultUndecodable("broken", task_id=hostile))
    results.deliver(TaskUpdate(hostile, hostile))
    assert len(caplog.messages) == 2
    for line in caplog.messages:
        assert len(line) < 500
        assert line.isprintable()


def test_after_a_final_update_nothing_changes() -> None:
    results = PendingResults()
    outcome = results.register("t")
    results.deliver(TaskUpdate("t", "SUCCESS", 1))
    results.deliver(TaskUpdate("t", "FAILURE", ValueError()))
    results.deliver_undecodable(ResultUndecodable("x", task_id="t"))
    results.fail_all(ClientClosed("x"))
    assert outcome.final is not None
    assert outcome.final.result == 1
    assert outcome.error is None


def test_what_was_settled_here_stays_so() -> None:
    results = PendingResults()
    outcome = results.register("t")
    outcome.fail(ClientClosed("closed"))
    results.deliver(TaskUpdate("t", "SUCCESS", 1))
    assert outcome.final is None


def test_a_call_under_the_id_of_a_settled_one_begins_anew() -> None:
    results = PendingResults()
    first = results.begin("t")
    assert results.begin("t") is first
    results.deliver(TaskUpdate("t", "SUCCESS", 1))
    second = results.begin("t")
    assert second is not first
    assert results.get("t") is second
