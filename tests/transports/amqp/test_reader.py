"""The reader: which frames go to receivers, which to aiormq, and what ends the connection."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridgetask.transports.amqp import reader as reader_module
from bridgetask.transports.amqp.frames import BODY, FRAME, HEADER, HEARTBEAT, METHOD, Method
from bridgetask.transports.amqp.reader import FrameReader

from ...security.frame_targets import Channels
from ...security.inputs import CONSUMER, PUBLISHER, content, delivery, frame


@pytest.fixture(autouse=True)
def amqp_path() -> None:
    """Neither way: there is no connection."""


class Methods:
    """Takes the methods of one channel, and no other frames."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []

    def receive(self, kind: int, data: bytes, begin: int, end: int) -> bool:
        if kind == METHOD:
            self.taken.append(data[begin:end])
        return kind == METHOD


some_frames = st.lists(
    st.tuples(st.integers(1, 3), st.integers(0, 3), st.binary(max_size=30)), max_size=12
)


@given(some_frames, st.lists(st.integers(1, 40), min_size=1, max_size=8))
def test_each_frame_goes_to_its_receiver_or_to_aiormq(
    sent: list[tuple[int, int, bytes]], sizes: list[int]
) -> None:
    loop = asyncio.new_event_loop()
    reader, ours = FrameReader(loop), Methods()
    reader.attach(2, ours)
    stream = b"".join(frame(*each) for each in sent)
    at = number = 0
    while at < len(stream):
        size = sizes[number % len(sizes)]
        reader.feed_data(stream[at : at + size])
        at, number = at + size, number + 1
    reader.feed_eof()
    left = loop.run_until_complete(reader.read())
    loop.close()
    is_ours = [kind == METHOD and channel == 2 for kind, channel, _ in sent]
    assert ours.taken == [each[2] for each, mine in zip(sent, is_ours, strict=True) if mine]
    others = [frame(*each) for each, mine in zip(sent, is_ours, strict=True) if not mine]
    assert left.removeprefix(HEARTBEAT) == b"".join(others)


async def test_a_receiver_that_is_detached_gets_no_more_frames() -> None:
    reader, first, second = FrameReader(asyncio.get_running_loop()), Methods(), Methods()
    reader.attach(1, first)
    reader.feed_data(frame(METHOD, 1, b"one"))
    reader.attach(1, second)
    reader.detach(1, first)  # it is not attached any more
    reader.feed_data(frame(METHOD, 1, b"two"))
    reader.detach(1, second)
    reader.feed_data(frame(METHOD, 1, b"three"))
    reader.feed_eof()
    assert (first.taken, second.taken) == ([b"one"], [b"two"])
    assert (await reader.read()).endswith(frame(METHOD, 1, b"three"))


async def test_aiormq_gets_a_heartbeat_each_second_while_receivers_take_all_frames() -> None:
    reader, now = FrameReader(asyncio.get_running_loop()), 100.0
    reader._clock = lambda: now
    reader.attach(1, Methods())
    for _ in range(25):
        reader.feed_data(frame(METHOD, 1, b"ours"))
        now += 0.1
    reader.feed_eof()
    assert await reader.read() == HEARTBEAT * 3


@pytest.mark.parametrize("noise", [b"AMQP\0\0\x09\x01", b"\x01\0\1\0\0\0\1xy" + b"z" * 20])
async def test_what_is_no_amqp_is_left_to_aiormq_to_complain_about(noise: bytes) -> None:
    reader = FrameReader(asyncio.get_running_loop())
    reader.attach(1, Methods())
    reader.feed_data(frame(METHOD, 1, b"ours") + frame(METHOD, 0, b"theirs") + noise)
    reader.feed_data(frame(METHOD, 1, b"ours"))  # nothing is believed after that
    assert await reader.read() == frame(METHOD, 0, b"theirs") + noise


async def test_much_that_comes_at_once_is_read_in_slices(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reader_module, "_SLICE", -1)
    reader, ours = FrameReader(asyncio.get_running_loop()), Methods()
    reader.attach(1, ours)
    reader.feed_data(b"".join(frame(METHOD, 1, bytes([n])) for n in range(40)))
    assert len(ours.taken) == 16
    reader.feed_data(frame(METHOD, 1, b"more") + frame(METHOD, 2, b"other"))
    assert len(ours.taken) == 16
    await asyncio.sleep(0)
    assert len(ours.taken) == 32
    while len(ours.taken) < 41:
        await asyncio.sleep(0)
    assert ours.taken == [*(bytes([n]) for n in range(40)), b"more"]
    assert reader.splitter.unread == 0


DELIVER = Method.DELIVER.to_bytes(4, "big")

BROKEN = {
    "a method without a number": frame(METHOD, CONSUMER, b"\0"),
    "a method without a number, before others": frame(METHOD, CONSUMER, b"\0") * 2,
    "a delivery without a tag": frame(METHOD, CONSUMER, DELIVER),
    "a content header of nothing": content(CONSUMER, b"\0\0", 1),
    "a content header that is cut off": delivery(b"", b"")[:-20] + frame(HEADER, CONSUMER, b"\0"),
    "a body of nothing": frame(BODY, CONSUMER, b"x"),
    "more of a body than there is": delivery(b"\0\0", b"x") + frame(BODY, CONSUMER, b"x"),
    "a frame of four gigabytes": FRAME.pack(BODY, CONSUMER, 2**32 - 1),
    "a return of nothing": content(PUBLISHER, b"\0\0", 1),
    "a return that is cut off": frame(METHOD, PUBLISHER, Method.RETURN.to_bytes(4, "big") + b"\0"),
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
async def test_a_frame_that_cannot_be_read_drops_the_connection(
    broken: bytes, collected_logs: Callable[[], list[str]]
) -> None:
    handed_over: list[Any] = []
    channels = Channels(lambda *message: handed_over.append(message))
    channels.reader.feed_data(delivery(b"\0\0", b"before") + broken)
    assert handed_over[0][0] == b"before"
    assert channels.socket.aborted
    count = len(handed_over)
    channels.reader.feed_data(delivery(b"\0\0", b"after"))
    assert len(handed_over) == count
    assert any("can't be read" in line for line in collected_logs())


async def test_a_large_frame_comes_to_aiormq_in_one_piece() -> None:
    reader = FrameReader(asyncio.get_running_loop())
    reader.splitter.largest_frame = 10_000_000
    data = frame(BODY, 3, bytes(1_000_000))
    for at in range(0, len(data), 1000):
        assert reader.last_data == b""
        reader.feed_data(data[at : at + 1000])
    assert reader.last_data == data
    reader.feed_eof()
    assert await reader.read() == data


async def test_what_is_left_when_the_connection_ends_is_dropped() -> None:
    channels = Channels(lambda *_: None)
    reader = channels.reader
    many = delivery(b"\0\0", b"x") * 200 + frame(METHOD, 0, struct.pack(">I", 5))
    reader.feed_data(many)
    assert reader._interrupted
    reader.feed_eof()
    for _ in range(20):
        await asyncio.sleep(0)
    assert not channels.socket.aborted


async def test_nothing_is_read_while_it_is_held() -> None:
    channels = Channels(lambda *_: None)
    reader, told = channels.reader, []
    channels.socket.pause_reading = lambda: told.append("pause")
    channels.socket.resume_reading = lambda: told.append("resume")
    reader.hold()
    reader.feed_data(delivery(b"\0\0", b"x") * 100)  # what was read by then is handled
    while reader._interrupted:
        await asyncio.sleep(0)
    assert told
    assert "resume" not in told
    reader.release()
    assert told[-1] == "resume"
