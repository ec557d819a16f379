from __future__ import annotations

import pickle

import celery.exceptions
import kombu.exceptions
import pytest

from bridgetask import errors


@pytest.mark.parametrize(
    ("error", "also"),
    [
        (errors.InvalidOption("option", "problem"), (ValueError, TypeError)),
        (errors.BrokerUnreachable("x"), (kombu.exceptions.OperationalError, errors.NotSent)),
        (errors.SendTimeout("x"), (TimeoutError, errors.NotSent)),
        (errors.ResultTimeout("x"), (TimeoutError, celery.exceptions.TimeoutError)),
        (errors.TaskRevoked("x"), (celery.exceptions.TaskRevokedError,)),
        (errors.WrongEventLoop("x"), (RuntimeError,)),
    ],
)
def test_errors_are_also_what_callers_know(
    error: Exception, also: tuple[type[Exception], ...]
) -> None:
    assert isinstance(error, errors.BridgetaskError)
    for each in also:
        assert isinstance(error, each)


@pytest.mark.parametrize(
    "error",
    [
        errors.InvalidOption("option", "problem"),
        errors.Refused("why", task_id="id", code=404),
        errors.Unconfirmed("why", task_id="id"),
        errors.ResultTimeout("why", task_id="id"),
        errors.TaskFailed("Odd", (1, "x"), exc_module="m", traceback="tb", task_id="id"),
        errors.TaskRevoked("why", task_id="id"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_survive_pickling(error: Exception) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert copy.__dict__ == error.__dict__


def test_invalid_option_names_the_option() -> None:
    error = errors.InvalidOption("countdown", "is odd")
    assert str(error) == "countdown: is odd"
    assert error.option == "countdown"


def test_task_failed_shows_the_exception_as_it_was() -> None:
    error = errors.TaskFailed("Odd", (1, "x"))
    assert str(error) == "Odd(1, 'x')"
