from __future__ import annotations

import bz2
import json
import lzma
import tracemalloc
import zlib
from typing import Any

import pytest
from celery import Celery
from celery.backends import base
from kombu import compression

from bridgetask import ResultUndecodable
from bridgetask.wire.compression import TooLarge, decompress
from bridgetask.wire.message import Properties
from bridgetask.wire.results import ResultDecoder

LIMIT = 1_000_000
#: Those of other tests are registered as well by now.
METHODS = [
    each
    for each in compression.encoders()
    if not compression.get_encoder(each)[0].__module__.startswith("tests.")
]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_of_kombu_unpacks_up_to_the_limit_and_no_further(method: str) -> None:
    for size in (0, 1, LIMIT - 1, LIMIT):
        body, _ = compression.compress(b"x" * size, method)
        assert decompress(body, method, LIMIT) == b"x" * size
    bomb, _ = compression.compress(bytes(64_000_000), method)
    tracemalloc.start()
    try:
        with pytest.raises(TooLarge, match="max_result_size"):
            decompress(bomb, method, LIMIT)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 32_000_000  # lzma has a dictionary of some megabytes


@pytest.mark.parametrize("method", METHODS)
def test_a_body_that_is_cut_off_or_broken_is_an_error(method: str) -> None:
    body, _ = compression.compress(bytes(range(256)) * 100, method)
    for broken in (body[: len(body) // 2], b"", b"nonsense"):
        with pytest.raises(Exception, match=r".") as caught:
            decompress(broken, method, LIMIT)
        assert not isinstance(caught.value, TooLarge)


@pytest.mark.parametrize("name", ["gzip", "zlib", "bzip2", "lzma", "xz"])
def test_methods_are_known_by_their_short_names(name: str) -> None:
    body, _ = compression.compress(b"x", name)
    assert decompress(body, name, LIMIT) == b"x"


def test_the_bounded_functions_are_those_that_kombu_calls() -> None:
    for function in (zlib.decompress, bz2.decompress, lzma.decompress):
        assert function in compression._decoders.values()


def test_a_method_of_the_programs_own_is_measured_afterwards() -> None:
    compression.register(lambda body: body[:1], lambda body: body * LIMIT, "test/own")
    try:
        assert len(decompress(b"x", "test/own", LIMIT)) == LIMIT
        with pytest.raises(TooLarge):
            decompress(b"xy", "test/own", LIMIT)
    finally:
        del compression._encoders["test/own"], compression._decoders["test/own"]


def make_decoder(limit: int) -> ResultDecoder:
    celery = Celery("large", broker="amqp://", backend="rpc://", set_as_current=False)
    return ResultDecoder(celery, max_size=limit)


def meta(result: Any) -> bytes:
    return json.dumps({"task_id": "t", "status": "SUCCESS", "result": result}).encode()


def test_a_result_above_the_limit_is_undecodable_compressed_or_not() -> None:
    decoder = make_decoder(1000)
    fits, large = meta("x" * 900), meta("x" * 1000)
    for body, headers in (
        (fits, None),
        (compression.compress(fits, "gzip")[0], {"compression": "gzip"}),
    ):
        update = decoder.decode(body, Properties("application/json", "utf-8", headers))
        assert update.result == "x" * 900
    for body, headers in (
        (large, None),
        (compression.compress(large, "gzip")[0], {"compression": "gzip"}),
    ):
        with pytest.raises(ResultUndecodable, match="more than 1000 bytes") as caught:
            decoder.decode(body, Properties("application/json", "utf-8", headers, "t"))
        assert caught.value.task_id == "t"


@pytest.mark.skipif(not hasattr(base, "compress_payload"), reason="Celery before 5.7")
def test_what_a_backend_has_stored_is_held_to_the_limit() -> None:
    decoder = make_decoder(1000)
    fits, large = meta("x" * 900), meta("x" * 1000)
    assert decoder.decode_stored(fits, "t").result == "x" * 900
    assert decoder.decode_stored(base.compress_payload(fits, "gzip"), "t").result == "x" * 900
    for payload in (large, base.compress_payload(large, "gzip")):
        with pytest.raises(ResultUndecodable, match="more than 1000 bytes"):
            decoder.decode_stored(payload, "t")
    nested = base.compress_payload(base.compress_payload(fits, "gzip"), "gzip")
    with pytest.raises(ResultUndecodable):
        decoder.decode_stored(nested, "t")


def test_what_is_compressed_or_large_is_decoded_elsewhere() -> None:
    decoder = make_decoder(1000)
    assert not decoder.is_slow(b"x" * 1000)
    assert decoder.is_slow(b"x" * 200_000)
    assert decoder.is_slow(b"x", {"compression": "gzip"})
    assert decoder.is_slow(b"\0celery-compressed\0application/x-gzip\0x")
