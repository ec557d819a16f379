"""The frame splitter: bytes in, frames out. No server, no event loop."""

from __future__ import annotations

import sys
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridgetask.transports.amqp.frames import BODY, FRAME, HEADER, HEARTBEAT, METHOD
from bridgetask.transports.amqp.splitter import (
    FrameError,
    FrameSplitter,
    FrameTooLarge,
    NotAmqp,
)

from ...security.inputs import frame

#: Type, channel and payload.
Told = tuple[int, int, bytes]


@pytest.fixture(autouse=True)
def amqp_path() -> None:
    """Neither way: a splitter knows of none."""


def read(splitter: FrameSplitter) -> list[Told]:
    """Take all frames that are there."""
    return [
        (kind, channel, data[begin:end]) for kind, channel, data, begin, end in splitter.frames()
    ]


def read_chunks(chunks: Iterable[bytes]) -> list[Told]:
    """Feed chunks as the reader does; fail where bytes get lost."""
    splitter, found, fed = FrameSplitter(), [], 0
    for chunk in chunks:
        fed += len(chunk)
        may_have_frames = splitter.feed(chunk)
        there = read(splitter) if may_have_frames else []
        found += there
        assert len(encoded(found)) + splitter.unread == fed
    assert splitter.take_rest() == b""
    return found


def encoded(frames: Iterable[Told]) -> bytes:
    return b"".join(frame(*each) for each in frames)


FRAMES: list[Told] = [
    (METHOD, 1, b"method"),
    (HEADER, 1, b""),
    (BODY, 65_535, b"\xce" * 9),
    (8, 0, b""),
    (BODY, 2, frame(METHOD, 1, b"a frame within a frame")),
    (METHOD, 0, b"x"),
]
STREAM = encoded(FRAMES)


def test_a_stream_may_be_cut_anywhere() -> None:
    for at in range(len(STREAM) + 1):
        assert read_chunks([STREAM[:at], STREAM[at:]]) == FRAMES


def test_a_stream_may_be_cut_in_any_two_places() -> None:
    for at in range(len(STREAM)):
        for to in range(at, len(STREAM)):
            assert read_chunks([STREAM[:at], STREAM[at:to], STREAM[to:]]) == FRAMES


@pytest.mark.parametrize("size", [1, 2, 7, 8, 9, 64])
def test_a_stream_may_come_in_small_pieces(size: int) -> None:
    assert read_chunks(STREAM[at : at + size] for at in range(0, len(STREAM), size)) == FRAMES


frames = st.lists(
    st.tuples(st.integers(0, 8), st.integers(0, 65_535), st.binary(max_size=40)), max_size=12
)


@given(frames, st.lists(st.integers(0, 60), min_size=1, max_size=10))
def test_the_frames_are_the_same_however_the_stream_is_cut(
    sent: list[Told], sizes: list[int]
) -> None:
    stream = encoded(sent)
    chunks = []
    for size in sizes:
        chunks.append(stream[:size])
        stream = stream[size:]
    assert read_chunks([*chunks, stream]) == sent


@given(frames, st.lists(st.integers(1, 5), min_size=1), st.integers(1, 60))
def test_an_iteration_that_is_left_off_goes_on_behind_the_last_frame(
    sent: list[Told], takes: list[int], size: int
) -> None:
    stream, splitter, found = encoded(sent), FrameSplitter(), []
    for turn in range(len(stream) + len(takes)):
        splitter.feed(stream[turn * size : (turn + 1) * size])
        for taken, (kind, channel, data, begin, end) in enumerate(splitter.frames(), 1):
            found.append((kind, channel, data[begin:end]))
            if taken == takes[turn % len(takes)]:
                break
        assert len(encoded(found)) + splitter.unread == min((turn + 1) * size, len(stream))
    assert found + read(splitter) == sent


def test_many_frames_come_out_of_one_chunk_without_a_copy() -> None:
    splitter, chunk = FrameSplitter(), STREAM * 1000
    assert splitter.feed(chunk)
    count = 0
    for _, _, data, begin, end in splitter.frames():
        assert data is chunk
        assert data[end] == 0xCE
        assert 0 < begin <= end < len(chunk)
        count += 1
    assert count == 6000


def test_nothing_of_a_chunk_is_held_once_it_is_split() -> None:
    chunk, splitter = STREAM + b"\x01", FrameSplitter()
    before = sys.getrefcount(chunk)
    splitter.feed(chunk)
    assert read(splitter) == FRAMES
    assert sys.getrefcount(chunk) == before
    assert splitter.unread == 1


def test_it_tells_whether_there_may_be_a_frame() -> None:
    splitter = FrameSplitter()
    whole = frame(BODY, 1, b"0123456789")
    told = [splitter.feed(whole[:6]), splitter.feed(whole[6:7])]
    assert told == [False, True]  # the header tells how much is missing
    assert read(splitter) == []
    assert not splitter.feed(whole[7:-1])
    assert splitter.unread == len(whole) - 1
    assert splitter.feed(whole[-1:])
    assert read(splitter) == [(BODY, 1, b"0123456789")]
    assert not splitter.feed(b"")
    assert read(splitter) == []


def test_the_chunks_of_a_large_frame_are_joined_once() -> None:
    splitter = FrameSplitter(10_000_000)
    stream = frame(BODY, 3, bytes(5_000_000))
    looks = 0
    for at in range(0, len(stream), 1000):
        if splitter.feed(stream[at : at + 1000]):
            looks += 1
            found = read(splitter)
    assert looks == 2  # at the header, and when all of it is there
    assert found == [(BODY, 3, bytes(5_000_000))]


def test_what_is_fed_during_an_iteration_comes_with_the_next_one() -> None:
    for at in range(8, len(STREAM) + 1):
        splitter, found, rest = FrameSplitter(), [], [STREAM[at:], HEARTBEAT, HEARTBEAT]
        splitter.feed(STREAM[:at])
        for _ in range(4):
            for kind, channel, data, begin, end in splitter.frames():
                found.append((kind, channel, data[begin:end]))
                if rest:
                    splitter.feed(rest.pop(0))
            if not found:  # the first frame is not whole yet
                splitter.feed(rest.pop(0))
        assert not rest
        assert found == [*FRAMES, (8, 0, b""), (8, 0, b"")]
        assert splitter.unread == 0


def test_a_payload_may_be_as_large_as_was_agreed_upon() -> None:
    splitter = FrameSplitter(1000)
    splitter.feed(frame(BODY, 1, bytes(1000)) + frame(BODY, 1, bytes(1001)))
    found = []
    with pytest.raises(FrameTooLarge, match="1001 bytes, above the 1000"):
        for each in splitter.frames():
            found.append(each)
    assert len(found) == 1


def test_a_frame_that_is_too_large_is_not_waited_for() -> None:
    splitter = FrameSplitter()
    splitter.feed(STREAM)
    assert read(splitter) == FRAMES
    assert splitter.feed(FRAME.pack(BODY, 1, 2**32 - 1))
    for _ in range(2):
        with pytest.raises(FrameTooLarge):
            read(splitter)
    assert splitter.unread == FRAME.size


def test_another_size_may_be_agreed_upon_later() -> None:
    splitter = FrameSplitter(10)
    splitter.feed(frame(METHOD, 0, bytes(10)))
    assert len(read(splitter)) == 1
    splitter.largest_frame = 2**32
    splitter.feed(frame(BODY, 1, bytes(200_000)))
    assert len(read(splitter)) == 1


def test_a_frame_must_end_as_frames_end() -> None:
    for wrong in (0, 0xCD, 0xFF):
        splitter = FrameSplitter()
        broken = FRAME.pack(BODY, 1, 3) + b"abc" + bytes((wrong,)) + STREAM
        splitter.feed(STREAM + broken)
        found = []
        with pytest.raises(NotAmqp, match="ends with 0x"):
            for kind, channel, data, begin, end in splitter.frames():
                found.append((kind, channel, data[begin:end]))
        assert found == FRAMES
        with pytest.raises(NotAmqp):
            read(splitter)
        assert splitter.take_rest() == broken


@pytest.mark.parametrize(
    "noise",
    [
        b"AMQP\0\0\x09\x01",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\x15\x03\x01\0\x02\x02\x46",
        b"\t" * 7,
    ],
)
def test_what_is_no_amqp_is_known_by_its_first_bytes(noise: bytes) -> None:
    splitter = FrameSplitter()
    assert not splitter.feed(noise[:6])
    assert read(splitter) == []
    assert splitter.feed(noise[6:])
    with pytest.raises(NotAmqp, match="a frame of type"):
        read(splitter)
    assert splitter.take_rest() == noise


def test_both_errors_are_one_kind_of_error() -> None:
    assert issubclass(NotAmqp, FrameError)
    assert issubclass(FrameTooLarge, FrameError)
    assert issubclass(FrameError, ValueError)


def test_a_splitter_whose_rest_was_taken_begins_anew() -> None:
    splitter = FrameSplitter()
    splitter.feed(STREAM + b"\x01\0\x01\0\0\0\x99incompl")
    assert read(splitter) == FRAMES
    splitter.feed(b"ete")
    assert splitter.take_rest() == b"\x01\0\x01\0\0\0\x99incomplete"
    assert splitter.unread == 0
    assert splitter.take_rest() == b""
    assert splitter.feed(HEARTBEAT)
    assert read(splitter) == [(8, 0, b"")]
