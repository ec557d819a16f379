from __future__ import annotations

import importlib
import inspect
import re
import subprocess
import sys

import pytest

import bridgetask
from bridgetask import errors


def test_the_facade_exports_the_union_of_its_modules() -> None:
    modules = ("client", "control", "events", "group", "inspect", "result")
    exported = {"TaskUpdate", "Updates", *errors.__all__}
    for name in modules:
        module = importlib.import_module(f"bridgetask.asyncio_impl.{name}")
        exported |= set(module.__all__)
    not_public = {"calls_of", "capture_events", "close_soon"}
    assert set(bridgetask.__all__) == exported - not_public
    assert all(hasattr(bridgetask, name) for name in bridgetask.__all__)


def test_the_version_is_a_version() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", bridgetask.__version__)


@pytest.mark.parametrize("module", ["twisted", "redis", "uvloop"])
def test_importing_bridgetask_loads_no_extra(module: str) -> None:
    program = f"import bridgetask, sys; print({module!r} in sys.modules)"
    printed = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert printed.stdout == "False\n"


def test_importing_the_twisted_client_installs_no_reactor() -> None:
    program = (
        "import bridgetask.twisted_compat, sys; print('twisted.internet.reactor' in sys.modules)"
    )
    printed = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert printed.stdout == "False\n"


def test_the_error_tree_at_the_top_of_errors_is_the_real_one() -> None:
    assert errors.__doc__ is not None
    drawn: dict[str, int] = {}
    for line in errors.__doc__.splitlines():
        found = re.match(r"^    ([│├└─ ]*)(\w+)", line)
        if found and hasattr(errors, found[2]):
            drawn[found[2]] = len(found[1]) // 4
    stack: list[str] = []
    for name, depth in drawn.items():
        cls = getattr(errors, name)
        if depth:
            parent = getattr(errors, stack[depth - 1])
            ancestors = [
                base.__name__
                for base in cls.__mro__[1:]
                if base.__module__ == errors.__name__ and not base.__name__.startswith("_")
            ]
            assert ancestors[0] == parent.__name__
        stack[depth:] = [name]
    assert set(drawn) == set(errors.__all__) - {"RemoteTraceback"}


def test_public_callables_have_docstrings() -> None:
    for name in bridgetask.__all__:
        thing = getattr(bridgetask, name)
        assert inspect.getdoc(thing), name
        for attribute, value in vars(thing).items():
            if not attribute.startswith("_") and inspect.isfunction(value):
                assert inspect.getdoc(value), f"{name}.{attribute}"
