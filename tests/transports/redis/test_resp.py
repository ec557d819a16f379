"""Redis' protocol, without a server."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridgetask.transports.redis.resp import ErrorReply, ProtocolError, RepliesDecoder, encode


def written(reply: Any) -> bytes:
    """Return a reply as a server writes it."""
    if reply is None:
        return b"$-1\r\n"
    if isinstance(reply, int):
        return b":%d\r\n" % reply
    if isinstance(reply, bytes):
        return b"$%d\r\n%b\r\n" % (len(reply), reply)
    if isinstance(reply, ErrorReply):
        return b"-%b\r\n" % reply.text.encode()
    return b"*%d\r\n" % len(reply) + b"".join(map(written, reply))


REPLIES = st.recursive(
    st.none() | st.integers(-(2**63), 2**63 - 1) | st.binary(max_size=40),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=8,
)


@given(st.lists(REPLIES, max_size=6), st.lists(st.integers(1, 9), max_size=30))
def test_replies_are_the_same_however_the_stream_is_cut(
    replies: list[Any], sizes: list[int]
) -> None:
    stream, decoder, read = b"".join(map(written, replies)), RepliesDecoder(), []
    for size in sizes:
        read += decoder.feed(stream[:size])
        stream = stream[size:]
    read += decoder.feed(stream)
    assert read == replies


def test_errors_have_a_code_and_a_text() -> None:
    [status, error, absent, empty] = RepliesDecoder().feed(
        b"+OK\r\n-OOM command not allowed\r\n*-1\r\n*0\r\n"
    )
    assert (status, absent, empty) == (b"OK", None, [])
    assert isinstance(error, ErrorReply)
    assert (error.code, error.text) == ("OOM", "OOM command not allowed")


@pytest.mark.parametrize(
    "stream",
    [
        b"HTTP/1.1 400 Bad Request\r\n",
        b":many\r\n",
        b"$-2\r\n",
        b"*x\r\n",
        b"$2\r\nabc\r\n",
        b"*1\r\n" * 100,
        b"+" + b"x" * 100_000,
    ],
)
def test_what_is_no_reply_is_an_error(stream: bytes) -> None:
    with pytest.raises(ProtocolError):
        RepliesDecoder().feed(stream)


@given(st.binary(max_size=200))
def test_nothing_else_is_raised_whatever_comes(stream: bytes) -> None:
    decoder = RepliesDecoder()
    try:
        for byte in stream:
            decoder.feed(bytes([byte]))
    except ProtocolError:
        pass


def test_commands_are_written_with_their_lengths() -> None:
    assert encode([("SET", "ä", b"\x00", 5, 2.5), ("PING",)]) == (
        b"*5\r\n$3\r\nSET\r\n$2\r\n\xc3\xa4\r\n$1\r\n\x00\r\n$1\r\n5\r\n$3\r\n2.5\r\n"
        b"*1\r\n$4\r\nPING\r\n"
    )
    assert encode([("X", bytearray(b"a"), memoryview(b"b"))]) == (
        b"*3\r\n$1\r\nX\r\n$1\r\na\r\n$1\r\nb\r\n"
    )


@pytest.mark.parametrize("argument", [None, True, ["x"], object()])
def test_arguments_of_other_kinds_are_refused(argument: Any) -> None:
    with pytest.raises(TypeError, match="Redis takes"):
        encode([("SET", argument)])
