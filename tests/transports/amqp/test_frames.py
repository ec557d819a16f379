"""Frames of messages: the bytes are py-amqp's, whatever the message."""

from __future__ import annotations

from typing import Any

import pytest
from amqp.method_framing import frame_handler
from amqp.serialization import decode_properties_basic
from hypothesis import given
from hypothesis import strategies as st

from bridgetask.transports.amqp.frames import (
    FRAME,
    HEADER,
    METHOD,
    Method,
    PropertiesDecoder,
    PublishEncoder,
    encode_ack,
    read_return,
)
from bridgetask.wire.message import OutgoingMessage

from .test_properties import by_py_amqp, properties


def read(data: bytes) -> list[tuple[int, tuple[int, int], bytes, Any]]:
    """Read a stream of frames by py-amqp."""
    found = []

    class Connection:
        bytes_recv = 0

    handle = frame_handler(
        Connection(),
        lambda channel, method, args, content: found.append(
            (channel, method, bytes(args), content)
        ),
    )
    at = 0
    while at < len(data):
        kind, channel, size = FRAME.unpack_from(data, at)
        assert data[at + FRAME.size + size] == 0xCE
        handle((kind, channel, data[at + FRAME.size : at + FRAME.size + size]))
        at += FRAME.size + size + 1
    return found


@pytest.mark.parametrize("size", [0, 1, 4087, 4088, 4089, 8176, 8177, 20_000])
def test_a_publish_is_read_back_by_py_amqp_whatever_its_size(size: int) -> None:
    body = bytes(range(256)) * (size // 256 + 1)
    message = OutgoingMessage("ex", "key", body[:size], {"content_type": "a/b"}, mandatory=True)
    pieces = PublishEncoder(7, 4096).encode(message)
    stream = b"".join(pieces)
    assert FRAME.unpack_from(stream)[0] == METHOD
    # py-amqp reads content of delivered messages alone.
    deliver = stream.replace(
        Method.PUBLISH.to_bytes(4, "big"), Method.DELIVER.to_bytes(4, "big"), 1
    )
    ((channel, _, arguments, content),) = read(deliver)
    assert channel == 7
    assert arguments == (deliver[FRAME.size : FRAME.size + 14])
    assert arguments[4:] == b"\0\0\2ex\3key\1"
    assert (content.body or b"") == body[:size]
    assert content.properties == {"content_type": "a/b"}
    assert all(len(piece) <= 4096 for piece in pieces[1:])


def test_an_unlimited_frame_size_is_one_frame_a_body() -> None:
    message = OutgoingMessage("", "key", b"x" * 300_000, {})
    (piece,) = PublishEncoder(1, 0).encode(message)
    assert len(piece) > 300_000


def test_an_acknowledgement_is_for_all_up_to_its_tag() -> None:
    ((channel, method, arguments, _),) = read(encode_ack(3, 2**40))
    assert (channel, method) == (3, (60, 80))
    assert arguments[4:] == (2**40).to_bytes(8, "big") + b"\1"


def test_a_return_tells_why_and_of_what() -> None:
    arguments = b"\x01\x38" + b"\x08NO_ROUTE" + b"\x02ex" + b"\x03key"
    assert read_return(arguments) == ("NO_ROUTE", "ex", "key")


@given(st.lists(properties, max_size=4))
def test_properties_are_decoded_as_py_amqp_does_however_often_they_come(
    all_given: list[dict[str, Any]],
) -> None:
    decoder = PropertiesDecoder()
    for given_properties in all_given * 2:
        encoded = by_py_amqp(given_properties)
        expected, _ = decode_properties_basic(encoded, 0)
        decoded = decoder.decode(encoded)
        assert decoded.content_type == expected.get("content_type")
        assert decoded.content_encoding == expected.get("content_encoding")
        assert decoded.headers == expected.get("application_headers")
        assert decoded.correlation_id == expected.get("correlation_id")


@given(st.lists(st.uuids(), min_size=2, max_size=5), properties)
def test_properties_in_common_do_not_mix_up_the_ids(
    ids: list[Any], given_properties: dict[str, Any]
) -> None:
    decoder = PropertiesDecoder()
    for each in ids:
        encoded = by_py_amqp({**given_properties, "correlation_id": str(each)})
        assert decoder.decode(encoded).correlation_id == str(each)


def test_what_is_remembered_is_bounded() -> None:
    decoder = PropertiesDecoder()
    for number in range(1000):
        decoder.decode(by_py_amqp({"app_id": "", "content_type": str(number)}))
        decoder.decode(by_py_amqp({"content_type": str(number), "correlation_id": "x" * 36}))
    assert len(decoder._known) <= 65


def test_properties_that_are_broken_are_none() -> None:
    assert PropertiesDecoder().decode(b"\xff\xff\x05ab") == (None, None, None, None)


def test_a_content_header_begins_with_its_class() -> None:
    message = OutgoingMessage("", "key", b"body", {"priority": 1})
    (piece,) = PublishEncoder(1, 131_072).encode(message)
    at = FRAME.size + FRAME.unpack_from(piece)[2] + 1
    assert FRAME.unpack_from(piece, at)[0] == HEADER
    assert piece[at + FRAME.size :][:12] == b"\0\x3c\0\0" + (4).to_bytes(8, "big")


@pytest.mark.parametrize("odd", [b"\xff" * 36, b"\xed\xa0\x80" * 12])
def test_an_id_that_is_no_text_breaks_nothing_after_one_that_is(odd: bytes) -> None:
    decoder = PropertiesDecoder()
    told = b"\x84\x00" + bytes((16,)) + b"application/json"
    fine = told + bytes((36,)) + b"i" * 36
    for _ in range(2):
        assert decoder.decode(fine).correlation_id == "i" * 36
        assert decoder.decode(told + bytes((36,)) + odd) == (None, None, None, None)


def test_long_properties_are_not_remembered() -> None:
    decoder = PropertiesDecoder()
    for number in range(60):
        told = b"\xc4\x00" + bytes((16,)) + b"application/json"
        told += bytes((250,)) + bytes((65 + number,)) * 250
        assert decoder.decode(told + bytes((36,)) + b"i" * 36).correlation_id == "i" * 36
    table = b"".join(b"\x02%02dV" % number for number in range(99)) * 10
    headers = len(table).to_bytes(4, "big") + table
    decoder.decode(b"\x24\x00" + headers + bytes((36,)) + b"i" * 36)
    assert sum(map(len, decoder._known)) < 60 * 1024
