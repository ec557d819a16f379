from __future__ import annotations

import gc

from bridgetask import ClientClosed, ResultUndecodable, TaskUpdate
from bridgetask.asyncio_impl import pending
from bridgetask.asyncio_impl.pending import PendingResults


def test_an_outcome_lives_as_long_as_somebody_holds_it() -> None:
    results = PendingResults()
    outcome = results.register("t")
    assert results.register("t") is outcome
    assert (len(results), results.unfinished) == (1, 1)
    del outcome
    gc.collect()
    assert len(results) == 0


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
    assert [each.state for each in grandchild.history or ()] == ["STARTED", "SUCCESS"]
    assert not results._early


def test_what_nobody_asks_for_is_kept_within_bounds() -> None:
    results = PendingResults()
    for number in range(pending._EARLY + 10):
        results.deliver(TaskUpdate(str(number), "SUCCESS", parent_id="t"))
        results.deliver(TaskUpdate(f"no parent {number}", "SUCCESS"))
    assert len(results._early) == pending._EARLY
    assert results.register("5").final is None
    assert results.register("15").final is not None


def test_after_a_final_update_nothing_changes() -> None:
    results = PendingResults()
    outcome = results.register("t")
    results.deliver(TaskUpdate("t", "SUCCESS", 1))
    results.deliver(TaskUpdate("t", "FAILURE", ValueError()))
    results.deliver_undecodable(ResultUndecodable("x", task_id="t"))
    results.fail_all(ClientClosed("x"))
    assert outcome.final is not None
    assert outcome.final.result == 1
    assert outcome.completion.error is None


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
