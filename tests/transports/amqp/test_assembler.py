"""Deliveries, put together from frames. No server, no event loop."""

from __future__ import annotations

import pytest
from amqp.basic_message import Message
from hypothesis import given
from hypothesis import strategies as st

from bridgetask.transports.amqp.assembler import Delivered, DeliveryAssembler
from bridgetask.wire.message import Properties

ID = "5b9e63e0-0c1f-4d32-8f0c-6a1d2f9a55cc"
RESULT = Properties("application/json", "utf-8", None, ID)
TOLD: bytes = Message(
    b"", content_type="application/json", content_encoding="utf-8", correlation_id=ID
)._serialize_properties()


@pytest.fixture(autouse=True)
def amqp_path() -> None:
    """Neither way: this is the direct one's, and has no connection."""


class Channel:
    """Frames of one channel, within other bytes of the stream."""

    def __init__(self, before: bytes = b"", after: bytes = b"") -> None:
        self.assembler = DeliveryAssembler()
        self._around = before, after

    def _placed(self, payload: bytes) -> tuple[bytes, int, int]:
        before, after = self._around
        return before + payload + after, len(before), len(before) + len(payload)

    def deliver(self, tag: int, consumer: bytes = b"consumer") -> None:
        arguments = bytes((len(consumer),)) + consumer + tag.to_bytes(8, "big")
        self.cut_delivery(arguments + b"\0\0\x05queue")

    def cut_delivery(self, arguments: bytes) -> None:
        self.assembler.deliver(*self._placed(arguments))

    def header(self, size: int, properties: bytes = TOLD) -> Delivered | None:
        return self.cut_header(b"\0\x3c\0\0" + size.to_bytes(8, "big") + properties)

    def cut_header(self, payload: bytes) -> Delivered | None:
        return self.assembler.header(*self._placed(payload))

    def body(self, body: bytes) -> Delivered | None:
        return self.assembler.body(*self._placed(body))


@pytest.fixture(params=[(b"", b""), (b"\xce" * 9, b"\1" * 30)], ids=["alone", "within a chunk"])
def channel(request: pytest.FixtureRequest) -> Channel:
    return Channel(*request.param)


def test_a_message_comes_with_its_tag_body_and_properties(channel: Channel) -> None:
    channel.deliver(2**63)
    assert channel.header(4) is None
    assert channel.body(b"body") == (2**63, b"body", RESULT)


def test_a_message_without_a_body_is_whole_with_its_header(channel: Channel) -> None:
    channel.deliver(1, consumer=b"")
    assert channel.header(0) == (1, b"", RESULT)
    channel.deliver(2)
    assert channel.header(0, b"\0\0") == (2, b"", Properties())


def test_properties_that_cannot_be_read_are_none(channel: Channel) -> None:
    channel.deliver(1)
    assert channel.header(1, b"\xff\xff\x05ab") is None
    assert channel.body(b"x") == (1, b"x", Properties())


messages = st.lists(
    st.tuples(st.integers(1, 2**64 - 1), st.lists(st.binary(min_size=1, max_size=9), max_size=5)),
    max_size=6,
)


@given(messages)
def test_bodies_are_put_together_from_any_number_of_frames(
    sent: list[tuple[int, list[bytes]]],
) -> None:
    channel, found = Channel(b"before", b"after"), []
    for tag, pieces in sent:
        channel.deliver(tag)
        told = [channel.header(len(b"".join(pieces))), *(channel.body(each) for each in pieces)]
        assert all(each is None for each in told[:-1])
        found.append(told[-1])
    assert found == [(tag, b"".join(pieces), RESULT) for tag, pieces in sent]


def test_a_body_of_nothing_cannot_be(channel: Channel) -> None:
    with pytest.raises(ValueError, match="0 were to come"):
        channel.body(b"x")
    channel.deliver(1)
    with pytest.raises(ValueError, match="0 were to come"):
        channel.body(b"x")


def test_a_body_can_be_no_larger_than_its_header_says(channel: Channel) -> None:
    channel.deliver(1)
    channel.header(3)
    channel.body(b"ab")
    with pytest.raises(ValueError, match="2 bytes of a body of which 1 were to come"):
        channel.body(b"cd")


def test_a_frame_of_a_body_cannot_be_empty(channel: Channel) -> None:
    channel.deliver(1)
    channel.header(3)
    with pytest.raises(ValueError, match="0 bytes of a body"):
        channel.body(b"")


def test_a_header_must_follow_a_delivery(channel: Channel) -> None:
    with pytest.raises(ValueError, match="follows no"):
        channel.header(1)
    channel.deliver(1)
    channel.header(1)
    with pytest.raises(ValueError, match="follows no"):
        channel.header(1)


def test_no_message_can_begin_within_another(channel: Channel) -> None:
    channel.deliver(1)
    with pytest.raises(ValueError, match="within a message"):
        channel.deliver(2)
    channel.header(5)
    channel.body(b"1")
    with pytest.raises(ValueError, match="within a message"):
        channel.deliver(2)


@pytest.mark.parametrize("size", [1, 2, 9, 16])
def test_a_delivery_that_is_cut_off_is_not_read_beyond_its_end(channel: Channel, size: int) -> None:
    with pytest.raises(ValueError, match="without a delivery tag"):
        channel.cut_delivery((b"\x08consumer" + bytes(8))[:size])


@pytest.mark.parametrize("size", [0, 1, 11])
def test_a_header_that_is_cut_off_is_not_read_beyond_its_end(channel: Channel, size: int) -> None:
    channel.deliver(1)
    with pytest.raises(ValueError, match="cut off"):
        channel.cut_header(bytes(size))
