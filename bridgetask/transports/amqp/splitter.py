"""Splits a stream of bytes into AMQP frames: bytes in, frames out, no I/O and no event loop."""

from __future__ import annotations

from collections.abc import Iterator

from .frames import FRAME, FRAME_END

__all__ = ["Frame", "FrameError", "FrameSplitter", "FrameTooLarge", "NotAmqp"]

#: A frame's type and channel, the bytes that it is in, and the begin and end of its payload there.
#: The payload is not copied.
Frame = tuple[int, int, bytes, int, int]

#: The largest payload in bytes until client and broker agree on one: RabbitMQ's own default.
_LARGEST_FRAME = 131_072
#: Methods, headers, bodies and heartbeats have the types 1, 2, 3 and 8.
_LAST_TYPE = 8
_HEADER_SIZE = FRAME.size


class FrameError(ValueError):
    """The stream can't be split any further. Splitting it again raises the same error."""


class NotAmqp(FrameError):
    """The stream is not AMQP: a frame has an unknown type, or no frame end behind its payload."""


class FrameTooLarge(FrameError):
    """A frame's payload is larger than :attr:`FrameSplitter.largest_frame`."""


class FrameSplitter:
    """Splits what it is fed into frames, wherever the chunks begin and end.

    ::

        if splitter.feed(data):
            for kind, channel, data, begin, end in splitter.frames():
                ...

    It holds what it was fed until that was split: one incomplete frame at most, if all frames are
    taken before more is fed.

    :param largest_frame: bytes that a payload may have. It may be changed between iterations.
    """

    def __init__(self, largest_frame: int = _LARGEST_FRAME) -> None:
        self.largest_frame: int = largest_frame
        #: What is being split, and where the next frame begins in it.
        self._data = b""
        self._at = 0
        #: The chunks that follow it. They are joined only once they complete a frame.
        self._chunks: list[bytes] = []
        #: Bytes in all of these.
        self._size = 0
        #: Bytes that must be unread before it makes sense to look for a frame.
        self._wanted: int = _HEADER_SIZE

    @property
    def unread(self) -> int:
        """How many bytes were fed that are in no frame yet."""
        return self._size - self._at

    def feed(self, data: bytes) -> bool:
        """Take a chunk; return whether :meth:`frames` may have something to tell."""
        if self._size == self._at:
            self._data, self._at, self._size = data, 0, len(data)
        else:
            self._chunks.append(data)
            self._size += len(data)
        return self._size - self._at >= self._wanted

    def frames(self) -> Iterator[Frame]:
        """Yield each whole frame, and forget it.

        An iteration that is left off goes on with the next call, behind the last frame that was
        yielded. There may be one iteration at a time.

        :raises FrameTooLarge: a frame's header says so. The payload was not waited for.
        :raises NotAmqp: the stream is not AMQP. :meth:`take_rest` has it, beginning with what
            should have been a frame.
        """
        if self._chunks:
            self._join()
        self._wanted = _HEADER_SIZE
        data, at, largest = self._data, self._at, self.largest_frame
        size = len(data)
        last = size - _HEADER_SIZE
        unpack = FRAME.unpack_from
        while at <= last:
            kind, channel, length = unpack(data, at)
            begin = at + _HEADER_SIZE
            end = begin + length
            if kind > _LAST_TYPE:
                raise NotAmqp(f"a frame of type {kind}")
            if length > largest:
                raise FrameTooLarge(f"a frame of {length} bytes, above the {largest} agreed upon")
            if end >= size:
                self._wanted = end + 1 - at
                break
            if data[end] != FRAME_END:
                raise NotAmqp(f"a frame that ends with {data[end]:#04x}")
            self._at = at = end + 1
            yield kind, channel, data, begin, end
        if self._at == at:  # otherwise a new chunk has replaced the one that was split
            self._data = data[at:]  # holds on to no frame
            self._size -= at
            self._at = 0

    def take_rest(self) -> bytes:
        """Return what was fed and is in no frame yet, and forget it."""
        self._join()
        rest, self._data = self._data, b""
        self._size, self._wanted = 0, _HEADER_SIZE
        return rest

    def _join(self) -> None:
        """Make one piece of all that is unread."""
        chunks = self._chunks
        if self._at < len(self._data):
            chunks.insert(0, self._data[self._at :])
        self._data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        self._size -= self._at
        self._at = 0
        chunks.clear()
