"""Tests that were written for RabbitMQ, to be run once more."""

from __future__ import annotations

import inspect
from collections.abc import Collection
from types import ModuleType
from typing import Any

__all__ = ["ported"]


def ported(module: ModuleType, *, but: Collection[str] = ()) -> dict[str, Any]:
    """Return the tests of a module, and its fixtures, but for those that ask RabbitMQ itself.

    :param but: names of further tests to leave out.
    """
    missing = set(but) - set(vars(module))
    assert not missing, f"there is no {missing}"
    return {
        name: value
        for name, value in vars(module).items()
        if _is_portable(value) and name not in but and value.__module__ == module.__name__
    }


def _is_portable(value: Any) -> bool:
    if isinstance(value, type):
        return value.__name__.startswith("Test")
    if not callable(value):
        return False
    if type(value).__name__ == "FixtureFunctionDefinition":
        return True
    return (
        value.__name__.startswith("test_") and "rabbitmq" not in inspect.signature(value).parameters
    )
