"""Templates are used with tested versions, and compared with Celery's code now and then."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import celery
import kombu
import pytest
from celery import Celery
from kombu import Queue

from bridgetask import InvalidOption
from bridgetask.retry import RetryPolicy
from bridgetask.wire.message import Declaration, OutgoingMessage
from bridgetask.wire.recorder import Recorder
from bridgetask.wire.template import Template
from bridgetask.wire.tested_versions import TESTED_VERSIONS, are_tested

from ..recorders import recorder_for

#: How often a kind of call is made before it comes from a template.
LEARNING = 2
#: How often a template is used before it is compared, which that use is.
COMPARED_EVERY = 1000
#: Seconds that a template may lie unused before it is compared.
IDLE = 1.0
PACKAGE = "bridgetask"


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def recorder(clock: Clock) -> Recorder:
    app = Celery("checks", broker="amqp://127.0.0.1:1//", backend="rpc://", set_as_current=False)
    return recorder_for(app, "reply", clock=clock)


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.INFO):
        yield caplog


def send(recorder: Recorder, **options: Any) -> OutgoingMessage:
    given = {"task_id": "the id", "compression": "gzip", **options}
    (message,) = recorder.send_task("t", (1,), {"k": 2}, given).messages
    return message


def learn(recorder: Recorder) -> Template:
    """Have a template made; return it."""
    for _ in range(LEARNING):
        assert send(recorder).template is None
    (template,) = recorder.templates.in_use
    return template


def lines(log: pytest.LogCaptureFixture, level: int) -> list[str]:
    return [each.getMessage() for each in log.records if each.levelno == level]


def test_the_versions_here_are_tested() -> None:
    """``differential`` runs with these: let it pass, and then add them."""
    assert are_tested(celery.__version__, kombu.__version__)


@pytest.mark.parametrize(
    ("version", "tested"),
    [
        (("5.7.0", "5.7.0"), True),
        (("5.7.3", "5.7.12"), True),
        (("5.7.0rc1", "5.7.0"), True),
        (("5.8.0", "5.7.0"), False),
        (("5.7.0", "5.8.0"), False),
        (("5.70.0", "5.7.0"), False),
        (("6.0.0b1", "6.0.0"), False),
        (("5.4.0", "5.4.0"), False),
    ],
)
def test_versions_count_by_their_minor_number(version: tuple[str, str], tested: bool) -> None:
    assert are_tested(*version) == tested


def test_all_versions_that_are_tested_are_pairs_of_minor_versions() -> None:
    assert all(each.count(".") == 1 for pair in TESTED_VERSIONS for each in pair)


@pytest.mark.parametrize("library", [celery, kombu], ids=lambda each: each.__name__)
def test_with_versions_that_nobody_has_tested_all_goes_celerys_way(
    recorder: Recorder,
    log: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    library: Any,
) -> None:
    are_tested.cache_clear()
    monkeypatch.setattr(library, "__version__", "99.1.0")
    for name in ("one", "other"):
        for _ in range(LEARNING + 2):
            recorder.send_task(name, None, None, {})
    another = recorder_for(recorder.app, "reply")
    for _ in range(LEARNING + 2):
        assert send(another).template is None
    assert recorder.templates.in_use == another.templates.in_use == []
    (line,) = lines(log, logging.INFO)
    assert library.__name__ in line.lower()
    assert "99.1.0" in line
    assert all(each.name.startswith(f"{PACKAGE}.") for each in log.records)


def test_with_versions_that_are_tested_nothing_is_logged(
    recorder: Recorder, log: pytest.LogCaptureFixture
) -> None:
    learn(recorder)
    assert log.records == []


def test_every_so_many_uses_the_message_is_celerys(
    recorder: Recorder, clock: Clock, log: pytest.LogCaptureFixture
) -> None:
    template = learn(recorder)
    for _ in range(3):
        for _ in range(COMPARED_EVERY - 1):
            assert send(recorder).template is template.identity
        assert send(recorder).template is None
    assert recorder.templates.in_use == [template]
    assert log.records == []


def test_after_a_second_of_idleness_the_message_is_celerys(
    recorder: Recorder, clock: Clock, log: pytest.LogCaptureFixture
) -> None:
    template = learn(recorder)
    for _ in range(20):
        clock.now += IDLE * 0.9
        assert send(recorder).template is template.identity
    clock.now += IDLE * 1.1
    assert send(recorder).template is None
    clock.now += IDLE * 0.9
    assert send(recorder).template is template.identity
    assert log.records == []


def _in_message(name: str, value: Any) -> Callable[[Template], None]:
    def corrupt(template: Template) -> None:
        template.message = replace(template.message, **{name: value})

    return corrupt


def _in_properties(name: str, value: Any) -> Callable[[Template], None]:
    def corrupt(template: Template) -> None:
        template.message = replace(
            template.message, properties=template.message.properties | {name: value}
        )

    return corrupt


def _in_headers(name: str, value: Any) -> Callable[[Template], None]:
    return lambda template: template.headers.update({name: value})


def _in_order(template: Template) -> None:
    template.headers = dict(reversed(template.headers.items()))


def _attribute(name: str, value: Any) -> Callable[[Template], None]:
    return lambda template: setattr(template, name, value)


def _not_shown(attribute: str, header: str) -> Callable[[Template], None]:
    def corrupt(template: Template) -> None:
        setattr(template, attribute, False)
        template.headers[header] = "those of the first call"

    return corrupt


_QUEUE = Declaration.of("queue_declare", "other", {})
#: What a template may have wrong; and what of the message is then said to differ.
FAULTS: dict[str, tuple[Callable[[Template], None], str]] = {
    "exchange": (_in_message("exchange", "other"), "exchange"),
    "routing key": (_in_message("routing_key", "other"), "routing_key"),
    "declarations": (_in_message("declarations", (_QUEUE,)), "declarations"),
    "retry": (_in_message("retry", RetryPolicy(max_retries=9)), "retry"),
    "timeout": (_in_message("timeout", 5.0), "timeout"),
    "priority": (_in_properties("priority", 5), "properties[priority]"),
    "delivery mode": (_in_properties("delivery_mode", True), "properties[delivery_mode]"),
    "one more property": (_in_properties("expiration", "5"), "properties[expiration]"),
    "header": (_in_headers("retries", 3), "headers[retries]"),
    "type of a header": (_in_headers("retries", False), "headers[retries]"),
    "one more header": (_in_headers("new", 3), "headers[new]"),
    "origin": (_in_headers("origin", "gen1@elsewhere"), "headers[origin]"),
    "order": (_in_order, "the order of headers"),
    "arguments": (_not_shown("shows_args", "argsrepr"), "headers[argsrepr]"),
    "keywords": (_not_shown("shows_kwargs", "kwargsrepr"), "headers[kwargsrepr]"),
    "embedded": (_attribute("embedded", {"chord": 1}), "body"),
    "serializer": (_attribute("serializer", "yaml"), "body"),
    "compression": (_attribute("compression", "bzip2"), "body"),
    "ignored": (_attribute("ignored", True), "ignored"),
}


@pytest.mark.parametrize("moment", ["uses", "idleness"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_template_that_is_wrong_is_dropped_for_good(
    recorder: Recorder, clock: Clock, log: pytest.LogCaptureFixture, fault: str, moment: str
) -> None:
    corrupt, differing = FAULTS[fault]
    expected = send(recorder_for(recorder.app, "reply"))
    template = learn(recorder)
    corrupt(template)
    if moment == "uses":
        template.uses = COMPARED_EVERY - 1
    else:
        clock.now += IDLE * 1.1
    for _ in range(LEARNING + 2):
        message = send(recorder)
        assert message == expected
        assert message.template is None
    assert recorder.templates.in_use == []
    (record,) = log.records
    assert record.levelno == logging.WARNING
    assert record.name.startswith(f"{PACKAGE}.")
    assert differing in record.getMessage()
    assert "t" in record.getMessage()


def test_a_template_that_is_wrong_is_found_by_being_used(
    recorder: Recorder, log: pytest.LogCaptureFixture
) -> None:
    template = learn(recorder)
    template.headers["retries"] = 3
    made = [send(recorder).properties["headers"]["retries"] for _ in range(COMPARED_EVERY + 5)]
    assert made == [3] * (COMPARED_EVERY - 1) + [0] * 6
    assert len(lines(log, logging.WARNING)) == 1


def test_one_that_is_wrong_is_not_made_again_when_others_are_forgotten(
    recorder: Recorder, clock: Clock
) -> None:
    learn(recorder).headers["retries"] = 3
    clock.now += IDLE * 1.1
    assert send(recorder).properties["headers"]["retries"] == 0
    for number in range(3000):
        recorder.send_task("t", None, None, {"shadow": f"call {number}"})
    for _ in range(LEARNING + 2):
        assert send(recorder).template is None


def test_what_is_out_of_date_is_no_fault(
    recorder: Recorder, clock: Clock, log: pytest.LogCaptureFixture
) -> None:
    learn(recorder)
    recorder.app.conf.task_default_queue = "other"
    clock.now += IDLE * 1.1
    for _ in range(LEARNING + 1):
        assert send(recorder).routing_key == "other"
    assert len(recorder.templates.in_use) == 1
    assert log.records == []


def test_arguments_that_can_not_be_compared_are_no_fault(
    recorder: Recorder, clock: Clock, log: pytest.LogCaptureFixture
) -> None:
    class Odd(str):
        __slots__ = ()
        __hash__ = str.__hash__

        def __eq__(self, other: object) -> bool:
            raise ValueError

    def call() -> OutgoingMessage:
        (message,) = recorder.send_task("t", (Odd("x"),), None, {}).messages
        return message

    for _ in range(LEARNING + 1):
        call()
    clock.now += IDLE * 1.1
    assert call().template is None
    assert len(recorder.templates.in_use) == 1
    assert log.records == []


def test_arguments_that_can_not_be_serialised_are_refused_at_each_time(
    recorder: Recorder, clock: Clock, log: pytest.LogCaptureFixture
) -> None:
    template = learn(recorder)
    for _ in range(3):
        clock.now += IDLE * 1.1
        with pytest.raises(InvalidOption, match="can't be serialised"):
            recorder.send_task("t", (object(),), None, {"compression": "gzip"})
    assert recorder.templates.in_use == [template]
    assert send(recorder).template is None
    assert send(recorder).template is template.identity
    assert log.records == []


def test_a_queue_that_a_call_brings_along_is_no_matter_of_templates(recorder: Recorder) -> None:
    for _ in range(LEARNING + 1):
        assert send(recorder, queue=Queue("own")).routing_key == "own"
    assert recorder.templates.in_use == []
