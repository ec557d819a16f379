"""Every option of a call, alone and in combinations."""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from .comparison import Options
from .conftest import MakeDifferential
from .options import BINDINGS, OPTIONS, QUEUES

#: How many combinations to try: the same ones each time, unless a number is given.
EXAMPLES = os.environ.get("BRIDGETASK_TEST_EXAMPLES")
NAMES = ["plain", "options", "routed", "bound", "unregistered"]
SINGLE = [{}, *(options for group in OPTIONS.values() for options in group)]
COMBINED = st.fixed_dictionaries(
    {}, optional={group: st.sampled_from(values) for group, values in OPTIONS.items()}
).map(lambda chosen: {name: value for each in chosen.values() for name, value in each.items()})


@pytest.mark.parametrize("protocol", [1, 2])
@pytest.mark.parametrize("name", NAMES)
def test_send_task_sends_the_same(differential: MakeDifferential, name: str, protocol: int) -> None:
    """Each option of ``send_task`` alone, for tasks with and without options of their own."""
    compared = differential(*QUEUES, bindings=BINDINGS, task_protocol=protocol)
    for options in SINGLE:
        compared.compare_task(name, **options)


@pytest.mark.parametrize("protocol", [1, 2])
@pytest.mark.parametrize("name", [name for name in NAMES if name != "unregistered"])
def test_apply_async_sends_the_same(
    differential: MakeDifferential, name: str, protocol: int
) -> None:
    """Each option of a task's ``apply_async`` alone."""
    compared = differential(*QUEUES, bindings=BINDINGS, task_protocol=protocol)
    for options in SINGLE:
        compared.compare_task(compared.app.tasks[name], **options)


@pytest.mark.parametrize("protocol", [1, 2])
def test_a_signature_sends_the_same(differential: MakeDifferential, protocol: int) -> None:
    """Each option alone, as a signature's own and as one that a call adds to it."""
    compared = differential(*QUEUES, bindings=BINDINGS, task_protocol=protocol)
    plain = compared.app.tasks["plain"]
    for options in SINGLE:
        given_before = {name: options[name] for name in options if name not in ("args", "kwargs")}
        signature = plain.s(1, k=2).set(**given_before)
        compared.compare_task(signature)
        signature = plain.si(1).set(priority=3, headers={"of": "the signature"}, countdown=7)
        compared.compare_task(signature, **options)


@pytest.mark.parametrize(
    "conf",
    [
        {},
        {"task_protocol": 1},
        {"result_backend": "disabled://", "task_default_delivery_mode": "transient"},
        {"task_ignore_result": True, "task_default_priority": 2, "task_publish_retry": False},
        {"timezone": "Asia/Kolkata", "enable_utc": False, "task_serializer": "yaml"},
        {"task_routes": {"plain": {"queue": "other", "priority": 1}}, "task_compression": "gzip"},
    ],
    ids=repr,
)
def test_combinations_of_options_send_the_same(
    differential: MakeDifferential, conf: dict[str, Any]
) -> None:
    """Any number of options at once, under settings that change what they do."""
    compared = differential(*QUEUES, bindings=BINDINGS, **conf)

    @settings(max_examples=int(EXAMPLES or 50), derandomize=EXAMPLES is None, deadline=None)
    @given(name=st.sampled_from(NAMES), by_name=st.booleans(), options=COMBINED)
    def combination_sends_the_same(name: str, by_name: bool, options: Options) -> None:
        by_name |= name == "unregistered"
        compared.compare_task(name if by_name else compared.app.tasks[name], **options)

    combination_sends_the_same()
