"""What an exception that a result names may do: be looked up among what is loaded, and no more."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
from celery import Celery

from bridgetask import ResultUndecodable, TaskFailed, TaskRevoked
from bridgetask.wire.message import Properties
from bridgetask.wire.results import ResultDecoder

DECODER = ResultDecoder(
    Celery("exceptions", broker="amqp://", backend="rpc://", set_as_current=False)
)
JSON = Properties("application/json", "utf-8")

touched: list[str] = []


def reported(exc_module: Any, exc_type: Any, *arguments: Any, state: str = "FAILURE") -> Any:
    error = {"exc_module": exc_module, "exc_type": exc_type, "exc_message": arguments}
    body = json.dumps({"task_id": "t", "status": state, "result": error}).encode()
    return DECODER.decode(body, JSON).result


class Harmful:
    """No exception: nothing of it may be called."""

    def __init__(self, *arguments: Any) -> None:
        touched.append(f"Harmful{arguments}")


class Outer:
    class InnerError(Exception):
        pass


class _Meta(type):
    def __getattribute__(cls, name: str) -> Any:
        touched.append(name)
        return super().__getattribute__(name)


class Watched(metaclass=_Meta):
    class InnerError(Exception):
        pass


class _Lazy:
    def __getattr__(self, name: str) -> Any:
        touched.append(name)
        return ValueError


lazy_object = _Lazy()


@pytest.fixture(autouse=True)
def nothing_touched() -> Iterator[None]:
    touched.clear()
    yield
    assert touched == []


def test_an_exception_that_is_loaded_is_rebuilt() -> None:
    assert type(reported("builtins", "KeyError", "x")) is KeyError
    inner = reported(__name__, "Outer.InnerError", "x")
    assert type(inner) is Outer.InnerError
    assert inner.args == ("x",)
    touched.clear()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("builtins", "eval"),
        ("builtins", "exec"),
        ("builtins", "object"),
        ("subprocess", "Popen"),
        (__name__, "Harmful"),
        (__name__, "lazy_object"),
        (__name__, "lazy_object.anything"),
        ("os", "path.join"),
        (__name__, "Harmful.__init__"),
    ],
)
def test_what_is_no_exception_is_not_called(module: str, name: str) -> None:
    with pytest.raises(ResultUndecodable, match="SecurityError: Expected an exception class"):
        reported(module, name, "touch /tmp/harm")


def test_no_module_is_imported() -> None:
    assert "antigravity" not in sys.modules
    assert isinstance(reported("antigravity", "X"), TaskFailed)
    assert "antigravity" not in sys.modules


def test_a_module_that_imports_lazily_is_not_made_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """Celery's own lookup calls a module's ``__getattr__``: concurrent.futures, celery, kombu."""
    module = ModuleType("lazy_package")

    def find(name: str) -> Any:
        touched.append(name)
        return ValueError

    module.__getattr__ = find  # type: ignore[method-assign]
    monkeypatch.setitem(sys.modules, "lazy_package", module)
    error = reported("lazy_package", "HiddenError", "x")
    assert isinstance(error, TaskFailed)
    assert (error.exc_module, error.exc_type) == ("lazy_package", "HiddenError")


def test_a_module_that_is_loaded_lazily_stays_unloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.find_spec("this")
    assert spec is not None
    assert spec.loader is not None
    spec.loader = importlib.util.LazyLoader(spec.loader)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "this", module)
    spec.loader.exec_module(module)
    assert isinstance(reported("this", "AnyError"), TaskFailed)
    assert type(module).__name__ == "_LazyModule"  # else the Zen of Python was printed


def test_an_object_in_the_place_of_a_module_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "no_module", lazy_object)
    assert isinstance(reported("no_module", "AnyError"), TaskFailed)


def test_classes_are_looked_into_without_running_their_code() -> None:
    touched.clear()
    assert isinstance(reported(__name__, "Watched.Missing"), TaskFailed)
    assert touched == []


def test_inherited_and_odd_names_are_not_found() -> None:
    for name in ("Outer..InnerError", "", ".", "Outer.", "__class__", "Outer.InnerError.mro.x"):
        with pytest.raises((ResultUndecodable, TaskFailed)):
            raise reported(__name__, name)


@pytest.mark.parametrize("module", [["os"], {"a": 1}, 5, True])
def test_a_module_that_is_no_name_is_undecodable(module: Any) -> None:
    with pytest.raises(ResultUndecodable, match="must be strings"):
        reported(module, "ValueError")


def test_a_made_up_class_is_none_of_ours() -> None:
    before = len(Exception.__subclasses__())
    for number in range(100):
        assert isinstance(reported("nowhere", f"Made{number}"), TaskFailed)
    assert len(Exception.__subclasses__()) == before


def test_a_revoked_task_names_whatever_it_likes() -> None:
    assert isinstance(reported("nowhere", "Unknown", "x", state="REVOKED"), TaskRevoked)
    assert isinstance(reported("builtins", "ValueError", "x", state="REVOKED"), TaskRevoked)
    with pytest.raises(ResultUndecodable):
        reported("os", "system", "x", state="REVOKED")


def test_the_reason_that_is_given_is_one_short_line() -> None:
    with pytest.raises(ResultUndecodable) as caught:
        DECODER.decode(
            b'{"task_id":"t","status":"FAILURE","result":"' + b"x" * 100_000 + b'"}',
            JSON,
        )
    assert len(str(caught.value)) < 500
    with pytest.raises(ResultUndecodable) as caught:
        DECODER.decode(b"x", Properties("text/\nforged\x1b", "utf-8"))
    assert str(caught.value).isprintable()
