"""A decoder of JSON that works in steps, so that other threads can run in between.

``json`` decodes a document in one call of its C code, which does not release the interpreter: 20 MB
that a thread decodes stop the event loop as long as if the loop's own thread did. Here the same C
code gets a part of the document at a time, small enough to be decoded in about a millisecond.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from json.decoder import WHITESPACE
from typing import Any

__all__ = ["loads"]

#: How many characters one step may decode, and how many are tried first.
_WINDOW, _SMALL = 65_536, 512


def loads(document: str, object_hook: Callable[[dict[str, Any]], Any]) -> Any:
    """Decode as ``json.loads`` does. A single string or number is one step, however long it is.

    :param object_hook: may be called more than once for an object, with the same members.
    :raises json.JSONDecodeError: the document is broken.
    :raises RecursionError: it is nested too deeply.
    """
    reader = _Reader(document, object_hook)
    value, end = reader.value(reader.skip(0))
    end = reader.skip(end)
    if end != len(document):
        raise json.JSONDecodeError("Extra data", document, end)
    return value


class _Reader:
    def __init__(self, document: str, object_hook: Callable[[dict[str, Any]], Any]) -> None:
        self._document = document
        self._hook = object_hook
        self._scan = json.JSONDecoder(object_hook=object_hook).scan_once

    def skip(self, at: int, text: str | None = None) -> int:
        """Return where the white space at ``at`` ends."""
        found = WHITESPACE.match(self._document if text is None else text, at)
        end: int = found.end()  # it matches nothing, too
        return end

    def value(self, at: int) -> tuple[Any, int]:
        """Return the value that begins at ``at``, and where it ends."""
        first = self._document[at : at + 1]
        if first not in ("[", "{"):
            return self._scalar(at)
        for size in (_SMALL, _WINDOW):
            try:
                value, end = self._scan(self._document[at : at + size], 0)
            except (StopIteration, json.JSONDecodeError):  # broken, or longer than the window
                continue
            return value, at + end
        return self._array(at + 1) if first == "[" else self._object(at + 1)

    def _scalar(self, at: int) -> tuple[Any, int]:
        try:
            value, end = self._scan(self._document, at)
        except StopIteration as error:
            raise json.JSONDecodeError("Expecting value", self._document, error.value) from None
        return value, end

    def _array(self, at: int) -> tuple[list[Any], int]:
        values: list[Any] = []
        at = self.skip(at)
        if self._document[at : at + 1] == "]":
            return values, at + 1
        while True:
            some, at = self._elements(at)
            values += some
            if self._document[at - 1] == "]":
                return values, at

    def _elements(self, at: int) -> tuple[list[Any], int]:
        """Return one or more elements of an array, and where the delimiter behind them ends."""
        window = self._document[at : at + _WINDOW]
        values, end = self._many(window) or self._one_by_one(window)
        if values:
            return values, self.skip(at + end)
        value, end = self.value(at)
        return [value], self._delimiter(end, "]")

    def _many(self, window: str) -> tuple[list[Any], int] | None:
        """Decode the elements up to the last comma that seems to be between two of them."""
        closing = {"[": "],", "{": "},"}.get(window[:1], ",")
        comma = window.rfind(closing) + len(closing) - 1
        if comma < len(closing):
            return None
        try:
            values, end = self._scan(f"[{window[:comma]}]", 0)
        except (StopIteration, json.JSONDecodeError):
            return None
        # If all of it is well-formed, the comma is the array's own.
        return (values, comma + 1) if end == comma + 2 else None

    def _one_by_one(self, window: str) -> tuple[list[Any], int]:
        """Decode the elements that are in the window in full, with a comma behind them."""
        values: list[Any] = []
        at = 0
        while True:
            try:
                value, end = self._scan(window, at)
            except (StopIteration, json.JSONDecodeError):
                return values, at
            end = self.skip(end, window)
            if window[end : end + 1] != ",":
                return values, at
            values.append(value)
            at = self.skip(end + 1, window)

    def _object(self, at: int) -> tuple[Any, int]:
        members: dict[str, Any] = {}
        at = self.skip(at)
        if self._document[at : at + 1] == "}":
            return self._hook(members), at + 1
        while True:
            if self._document[at : at + 1] != '"':
                raise json.JSONDecodeError(
                    "Expecting property name enclosed in double quotes", self._document, at
                )
            key, at = self._scalar(at)
            at = self.skip(at)
            if self._document[at : at + 1] != ":":
                raise json.JSONDecodeError("Expecting ':' delimiter", self._document, at)
            members[key], at = self.value(self.skip(at + 1))
            at = self._delimiter(at, "}")
            if self._document[at - 1] == "}":
                return self._hook(members), at

    def _delimiter(self, at: int, closing: str) -> int:
        """Return where the next element begins, or what follows ``closing``."""
        at = self.skip(at)
        found = self._document[at : at + 1]
        if found == closing:
            return at + 1
        if found != ",":
            raise json.JSONDecodeError("Expecting ',' delimiter", self._document, at)
        return self.skip(at + 1)
