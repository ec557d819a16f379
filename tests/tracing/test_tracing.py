"""A call's trace begins with the caller's span, and goes on in the worker."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from ..servers import Worker

#: How many tasks the callers call, and how many of them a worker publishes: a chain's second step.
CALLS, BY_WORKER = 12, 1


def trace_calls(broker_url: str, library: str) -> tuple[dict[str, list[Any]], list[Any]]:
    """Run a caller beside a traced worker; return what its tasks saw, and its spans."""
    environment = {"BRIDGETASK_TEST_BROKER": broker_url}
    tasks = f"tests.tracing.{library}_tasks"
    with Worker(tasks, environment=environment, name=f"traced-{library}"):
        caller = subprocess.run(
            [sys.executable, "-W", "error", "-m", f"tests.tracing.{library}_caller"],
            env=os.environ | environment,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
    assert caller.returncode == 0, caller.stderr
    assert not caller.stderr
    answer = json.loads(caller.stdout)
    return answer["seen"], answer["spans"]


def test_opentelemetry_traces_a_call_into_the_worker(broker_url: str) -> None:
    seen, spans = trace_calls(broker_url, "otel")
    (request,) = (each for each in spans if each["name"] == "request")
    published = [each for each in spans if each is not request]
    assert len(published) == CALLS - BY_WORKER
    assert {each["name"] for each in published} == {"apply_async/tests.tracing.otel_tasks.where"}
    check(seen, request, published)


def test_sentry_traces_a_call_into_the_worker(broker_url: str) -> None:
    seen, spans = trace_calls(broker_url, "sentry")
    (request,) = (each for each in spans if each["name"] == "request")
    submitted = [each for each in spans if each["op"] == "queue.submit.celery"]
    published = [each for each in spans if each["op"] == "queue.publish"]
    assert len(published) == CALLS - BY_WORKER
    assert {each["trace"] for each in published} == {request["trace"]}
    assert all(each["ended"] for each in published)
    check(seen, request, submitted)


def check(seen: dict[str, list[Any]], request: Any, sent: list[Any]) -> None:
    """Each task ran in a span of the caller's trace, below the one that it was sent in."""
    ran = [each for values in seen.values() for each in values]
    assert len(ran) == CALLS
    assert {each["trace"] for each in (*ran, *sent)} == {request["trace"]}
    assert all(each["ended"] for each in sent)
    parent_of = {each["id"]: each["parent"] for each in sent}
    for each in sent:
        ancestor = each["parent"]
        while ancestor != request["id"]:  # Sentry has a span for apply_async and for send_task
            ancestor = parent_of[ancestor]
    by_caller = ran[:-BY_WORKER]
    parents = [each["parent"] for each in by_caller]
    assert len(set(parents)) == len(by_caller)
    assert set(parents) <= set(parent_of)
    assert ran[-1]["parent"] not in {None, request["id"]}
