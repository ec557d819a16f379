from __future__ import annotations

import bz2
import json
from typing import Any

import pytest
from celery import Celery
from hypothesis import given
from hypothesis import strategies as st
from kombu import compression
from kombu.serialization import dumps

from bridgetask import RemoteTraceback, ResultUndecodable, TaskFailed, TaskRevoked, TaskUpdate
from bridgetask.wire.message import Properties
from bridgetask.wire.results import ResultDecoder

from ..tasks import ComplexError


def make_decoder(**conf: Any) -> ResultDecoder:
    celery = Celery("results", broker="amqp://", backend="rpc://", set_as_current=False)
    celery.conf.update(conf)
    return ResultDecoder(celery)


DECODER = make_decoder()
JSON = Properties("application/json", "utf-8", correlation_id="correlated")


def decode(meta: Any, decoder: ResultDecoder = DECODER) -> TaskUpdate:
    return decoder.decode(json.dumps(meta).encode(), JSON)


def failure(exc_type: Any, exc_module: Any, exc_message: Any, **more: Any) -> TaskUpdate:
    error = {"exc_type": exc_type, "exc_module": exc_module, "exc_message": exc_message}
    return decode({"task_id": "t", "status": "FAILURE", "result": error, **more})


def test_a_success_is_read_with_all_that_came_with_it() -> None:
    meta = {
        "task_id": "t",
        "status": "SUCCESS",
        "result": {"x": 1},
        "traceback": None,
        "children": [[["c", None], None]],
        "parent_id": "p",
        "date_done": "2026-01-01",
        "worker": "w",
    }
    update = decode(meta)
    assert (update.task_id, update.state, update.result) == ("t", "SUCCESS", {"x": 1})
    assert update.children == ([["c", None], None],)
    assert (update.parent_id, update.meta["worker"]) == ("p", "w")
    assert update.final
    assert update.error is None


@pytest.mark.parametrize("state", ["STARTED", "RECEIVED", "PROGRESS", "custom"])
def test_other_states_are_no_results(state: str) -> None:
    update = decode({"task_id": "t", "status": state, "result": {"n": 1}})
    assert not update.final
    assert update.error is None
    assert update.result == {"n": 1}


def test_a_retry_carries_its_exception_and_is_no_result() -> None:
    error = {"exc_type": "ValueError", "exc_module": "builtins", "exc_message": ["x"]}
    update = decode({"task_id": "t", "status": "RETRY", "result": error})
    assert not update.final
    assert isinstance(update.result, ValueError)
    assert update.error is None


def test_exceptions_are_rebuilt_as_their_own_class() -> None:
    update = failure("ComplexError", "tests.tasks", [7, "why"], traceback="remote lines")
    assert isinstance(update.error, ComplexError)
    assert update.error.args == (7, "why")
    assert isinstance(update.error.__cause__, RemoteTraceback)
    assert "remote lines" in str(update.error.__cause__)


@pytest.mark.parametrize(
    ("exc_type", "exc_module", "arguments"),
    [
        ("NotHere", "not.imported", ["x"]),
        ("NotHere", "builtins", ["x"]),
        ("NotHere", None, ["x"]),
        ("ComplexError", "tests.tasks", ["too few"]),
        ("SystemExit", "builtins", [1]),
        ("KeyboardInterrupt", "builtins", []),
        ("GeneratorExit", "builtins", []),
        ("CancelledError", "asyncio.exceptions", []),
        ("StopIteration", "builtins", [1]),
        ("StopAsyncIteration", "builtins", []),
    ],
)
def test_what_cannot_be_rebuilt_or_raised_keeps_type_arguments_and_traceback(
    exc_type: str, exc_module: str | None, arguments: list[Any]
) -> None:
    error = failure(exc_type, exc_module, arguments, traceback="tb").error
    assert isinstance(error, TaskFailed)
    assert (error.exc_type, error.exc_module) == (exc_type, exc_module)
    assert error.exc_args == tuple(arguments)
    assert (error.traceback, error.task_id) == ("tb", "t")


def test_a_message_that_is_no_list_is_one_argument() -> None:
    error = failure("NotHere", "gone", "text").error
    assert isinstance(error, TaskFailed)
    assert error.exc_args == ("text",)


def test_a_failure_that_carries_nothing_is_a_failure() -> None:
    update = decode({"task_id": "t", "status": "FAILURE", "result": None})
    assert isinstance(update.error, TaskFailed)


def test_a_revoked_task_is_ours_and_celerys_error() -> None:
    error = {"exc_type": "TaskRevokedError", "exc_module": "celery.exceptions"}
    update = decode(
        {"task_id": "t", "status": "REVOKED", "result": {**error, "exc_message": ["x"]}}
    )
    assert isinstance(update.error, TaskRevoked)
    assert update.error.task_id == "t"


def test_no_module_is_imported_for_an_exception() -> None:
    import sys

    assert "antigravity" not in sys.modules
    assert isinstance(failure("X", "antigravity", []).error, TaskFailed)
    assert "antigravity" not in sys.modules


def test_only_accepted_content_is_decoded() -> None:
    meta = {"task_id": "t", "status": "SUCCESS", "result": 1}
    content_type, encoding, body = dumps(meta, serializer="pickle")
    with pytest.raises(ResultUndecodable, match="ContentDisallowed"):
        DECODER.decode(body, Properties(content_type, encoding))
    willing = make_decoder(result_accept_content=["pickle"])
    assert willing.decode(body, Properties(content_type, encoding)).result == 1
    with pytest.raises(ResultUndecodable, match="ContentDisallowed"):
        decode(meta, willing)
    accepting = make_decoder(accept_content=["json", "pickle"])
    assert accepting.decode(body, Properties(content_type, encoding)).result == 1


def test_pickled_exceptions_are_taken_as_they_are() -> None:
    meta = {"task_id": "t", "status": "FAILURE", "result": ComplexError(1, "x"), "traceback": "tb"}
    content_type, encoding, body = dumps(meta, serializer="pickle")
    decoder = make_decoder(accept_content=["pickle"], result_serializer="pickle")
    error = decoder.decode(body, Properties(content_type, encoding)).error
    assert isinstance(error, ComplexError)
    assert isinstance(error.__cause__, RemoteTraceback)


def test_compressed_results_are_read() -> None:
    meta = json.dumps({"task_id": "t", "status": "SUCCESS", "result": "x" * 100}).encode()
    body, kind = compression.compress(meta, "gzip")
    update = DECODER.decode(body, JSON._replace(headers={"compression": kind}))
    assert update.result == "x" * 100


@pytest.mark.parametrize(
    "meta",
    [
        None,
        [],
        3,
        {},
        {"task_id": "t"},
        {"task_id": 5, "status": "SUCCESS"},
        {"task_id": "t", "status": 5},
        {"task_id": "t", "status": "FAILURE", "result": 5},
        {"task_id": "t", "status": "FAILURE", "result": {"exc_module": "x"}},
        {"task_id": "t", "status": "FAILURE", "result": {"exc_type": "system", "exc_module": "os"}},
    ],
    ids=repr,
)
def test_the_wrong_shape_is_undecodable_and_says_for_which_task(meta: Any) -> None:
    with pytest.raises(ResultUndecodable) as caught:
        decode(meta)
    assert caught.value.task_id == "correlated"


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(
    st.dictionaries(
        st.sampled_from(["task_id", "status", "result", "traceback", "children", "parent_id"])
        | st.text(),
        anything
        | st.sampled_from(["SUCCESS", "FAILURE", "RETRY", "REVOKED", "t"])
        | st.fixed_dictionaries({"exc_type": anything, "exc_module": anything}),
    )
)
def test_whatever_is_decoded_nothing_but_an_undecodable_result_is_raised(meta: Any) -> None:
    try:
        update = decode(meta)
    except ResultUndecodable:
        return
    assert isinstance(update.task_id, str)
    assert isinstance(update.children, tuple)
    assert update.error is None or isinstance(update.error, Exception)


@given(st.binary(), st.none() | st.text(), st.none() | st.text())
def test_random_bytes_are_undecodable_at_worst(
    body: bytes, content_type: str | None, encoding: str | None
) -> None:
    with pytest.raises(ResultUndecodable):
        DECODER.decode(body, Properties(content_type, encoding))


@pytest.mark.parametrize("encoding", ["bz2", "zlib", "idna", "rot13", "utf-16"])
def test_no_codec_is_looked_up_for_a_body_without_a_decoder(encoding: str) -> None:
    """kombu would unpack it by whichever codec the sender names, to any size."""
    bomb = bz2.compress(bytes(1_000_000))
    for content_type in ("application/data", "application/text", None):
        with pytest.raises(ResultUndecodable, match="ContentDisallowed"):
            DECODER.decode(bomb, Properties(content_type, encoding))


def test_a_body_that_looks_like_a_stored_one_is_not_slow_nor_an_error() -> None:
    DECODER.is_slow(b"\0celery-compressed\0\xff\0x")
    with pytest.raises(ResultUndecodable):
        DECODER.decode_stored(b"\0celery-compressed\0\xff\0x", "t")


def test_a_stored_group_is_held_to_the_limit_and_to_what_is_accepted() -> None:
    celery = Celery("groups", broker="amqp://", backend="rpc://", set_as_current=False)
    decoder = ResultDecoder(celery, max_size=100)
    assert decoder.decode_group(b'{"result": [["g", null], []]}', "g") == [["g", None], []]
    with pytest.raises(ResultUndecodable, match="more than 100 bytes"):
        decoder.decode_group(b'{"result": "' + b"x" * 100 + b'"}', "g")
