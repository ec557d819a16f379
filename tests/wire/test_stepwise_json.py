from __future__ import annotations

import json
import math
import sys
import threading
import time
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from kombu.utils.json import object_hook

from bridgetask.wire import stepwise_json

documents = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False)
    | st.text()
    | st.sampled_from(['"}, {', "],[", "\\", '\\"', "},", ","]),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=60,
)


@pytest.fixture(autouse=True, params=[(1, 1), (2, 7), (7, 30), (512, 65_536)], ids=str)
def windows(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the windows so small that every document is longer than some."""
    small, window = request.param
    monkeypatch.setattr(stepwise_json, "_SMALL", small)
    monkeypatch.setattr(stepwise_json, "_WINDOW", window)


def outcome(loads: Any, document: str) -> Any:
    try:
        return repr(loads(document, object_hook=object_hook))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return type(error)


@given(documents, st.sampled_from([None, 1]), st.sampled_from([(",", ":"), (", ", ": "), None]))
@settings(max_examples=150)
def test_documents_are_decoded_as_json_does(value: Any, indent: Any, separators: Any) -> None:
    document = json.dumps(value, indent=indent, separators=separators)
    assert stepwise_json.loads(document, lambda found: found) == value
    assert outcome(stepwise_json.loads, document) == outcome(json.loads, document)


@given(documents, st.data())
@settings(max_examples=150)
def test_broken_documents_are_refused_as_json_does(value: Any, data: st.DataObject) -> None:
    document = json.dumps(value)
    at = data.draw(st.integers(0, len(document)))
    inserted = data.draw(st.sampled_from(['"', "[", "]", "{", "}", ",", ":", "1", " ", "\\", "x"]))
    for broken in (document[:at], document[:at] + inserted + document[at:], document + inserted):
        assert outcome(stepwise_json.loads, broken) == outcome(json.loads, broken)


@given(st.text(st.sampled_from('[]{},:"\\ 1eN-truefalsn\n')))
@example("[1,]")
@example("[1 2]")
@example("[1,2}")
@example('{"a":1,}')
@example('{"a" 1}')
@example("{1:1}")
@example("")
@example("NaN")
@example("[-Infinity, Infinity]")
@settings(max_examples=300)
def test_whatever_looks_like_json_is_taken_or_refused_as_json_does(document: str) -> None:
    assert outcome(stepwise_json.loads, document) == outcome(json.loads, document)


def test_what_is_nested_too_deeply_is_a_recursion_error() -> None:
    depth = 10 * sys.getrecursionlimit()
    for opening in ("[", '{"a":'):
        with pytest.raises(RecursionError):
            stepwise_json.loads(opening * depth, object_hook)


def test_a_large_document_lets_other_threads_run() -> None:
    if stepwise_json._WINDOW < 65_536:
        pytest.skip("the windows of production are what counts")
    document = json.dumps(list(range(1_000_000)))
    expected = json.loads(document)
    turns = 0
    found: list[Any] = []

    def work() -> None:
        found.append(stepwise_json.loads(document, object_hook))

    thread = threading.Thread(target=work)
    thread.start()
    while thread.is_alive():
        turns += 1
        time.sleep(0)
    thread.join()
    assert found == [expected]
    assert turns > 5  # with json.loads it is one or two
    assert math.isfinite(turns)
