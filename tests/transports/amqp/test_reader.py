"""What the reader does with frames that no broker sends."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from typing import Any

import pytest

from bridgetask.transports.amqp.frames import BODY, FRAME, HEADER, METHOD, Method
from bridgetask.transports.amqp.reader import FrameReader

from ...security.inputs import DELIVERIES, PUBLISHER, content, delivery, frame
from ...security.targets import Channels

DELIVER = Method.DELIVER.to_bytes(4, "big")

BROKEN = {
    "a method without a number": frame(METHOD, DELIVERIES, b"\0"),
    "a delivery without a tag": frame(METHOD, DELIVERIES, DELIVER),
    "a content header of nothing": content(DELIVERIES, b"\0\0", 1),
    "a content header that is cut off": delivery(b"", b"")[:-20] + frame(HEADER, DELIVERIES, b"\0"),
    "a body of nothing": frame(BODY, DELIVERIES, b"x"),
    "more of a body than there is": delivery(b"\0\0", b"x") + frame(BODY, DELIVERIES, b"x"),
    "a frame of four gigabytes": FRAME.pack(BODY, DELIVERIES, 2**32 - 1),
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


async def test_a_large_frame_is_put_together_once() -> None:
    reader = FrameReader(asyncio.get_running_loop())
    reader.largest_frame = 10_000_000
    data = frame(BODY, 3, bytes(1_000_000))
    for at in range(0, len(data), 1000):
        assert len(reader._unread) <= at // 1000 + 1
        reader.feed_data(data[at : at + 1000])
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
