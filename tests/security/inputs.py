"""Hostile messages, frames and payloads, made from bytes that a fuzzer has made up.

Much of it is nearly right: what is nothing but noise fails at the first look that is taken at it.
"""

from __future__ import annotations

import bz2
import json
import lzma
import pickle
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from amqp.basic_message import Message

from bridgetask.transports.amqp.frames import BODY, FRAME, HEADER, METHOD, Method
from bridgetask.wire.message import Properties

from .raw import long, short

T = TypeVar("T")

#: The tasks that somebody waits for. Inputs may name the first two, and never the last one.
IDS = tuple(f"{number}b9e63e0-0c1f-4d32-8f0c-6a1d2f9a55cc" for number in range(3))
NAMED = IDS[:2]

executed: list[str] = []


class Payload:
    """What runs code when it is unpickled."""

    def __reduce__(self) -> Any:
        return executed.append, ("pickle",)


class Choices:
    """Choices that bytes make. Where they end, it is the first one each time."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        """Tell whether any bytes are left."""
        return self._at < len(self._data)

    def take(self, size: int) -> bytes:
        taken = self._data[self._at : self._at + size]
        self._at += size
        return taken

    def number(self, below: int) -> int:
        size = 1 if below <= 256 else 4
        return int.from_bytes(self.take(size), "big") % below

    def pick(self, options: Sequence[T]) -> T:
        return options[self.number(len(options))]

    def noise(self) -> bytes:
        return self.take(self.number(64))


STATES = ["SUCCESS", "FAILURE", "REVOKED", "RETRY", "STARTED", "PENDING", "PROGRESS", "success", ""]
CLASSES = [
    ("builtins", "ValueError"),
    ("builtins", "SystemExit"),
    ("builtins", "KeyboardInterrupt"),
    ("builtins", "StopIteration"),
    ("builtins", "UnicodeDecodeError"),
    ("builtins", "ExceptionGroup"),
    ("builtins", "OSError"),
    ("builtins", "eval"),
    ("builtins", "object"),
    ("asyncio.exceptions", "CancelledError"),
    ("celery.exceptions", "TaskRevokedError"),
    ("celery.exceptions", "Retry"),
    ("bridgetask.errors", "ResultUndecodable"),
    ("os", "system"),
    ("os", "path.join"),
    ("antigravity", "Nothing"),
    ("celery.backends.redis", "ResultConsumer"),
]
NUMBERS = [0, 1, -1, 2**31, 2**63, -(2**63), 2**64, 10**400, 0.5, float("inf"), float("nan")]
TYPES = ["datetime", "date", "time", "decimal", "uuid", "bytes", "base64", "nothing", ""]


def value(choices: Choices, depth: int = 0) -> Any:
    """Return something that JSON can say."""
    kind = choices.number(10) if depth < 5 else choices.number(5)
    if kind == 0:
        return choices.pick([None, True, False])
    if kind == 1:
        return choices.pick(NUMBERS)
    if kind == 2:
        return choices.pick([*NAMED, *STATES, "x" * 300, "\ud800", "\0", "\x1b[2J"])
    if kind == 3:
        return choices.noise().decode("utf-8", "surrogateescape")
    if kind == 4:
        return {"__type__": choices.pick(TYPES), "__value__": choices.noise().decode("latin-1")}
    if kind == 5:
        return error(choices, depth)
    if kind == 6:
        return {"__type__": value(choices, depth + 1), "__value__": value(choices, depth + 1)}
    if kind == 7:
        return [[choices.pick(NAMED), value(choices, depth + 1)], value(choices, depth + 1)]
    if kind == 8:
        return [value(choices, depth + 1) for _ in range(choices.number(4))]
    names = [choices.pick(["a", "exc_type", "result", "children"]) for _ in range(3)]
    return {name: value(choices, depth + 1) for name in names}


def error(choices: Choices, depth: int) -> dict[str, Any]:
    """Return an exception as a worker would send it, more or less."""
    module, name = choices.pick(CLASSES)
    said = {"exc_module": module, "exc_type": name, "exc_message": value(choices, depth + 1)}
    if not choices.number(4):
        said[choices.pick(list(said))] = value(choices, depth + 1)
    if not choices.number(8):
        del said[choices.pick(list(said))]
    return said


def meta(choices: Choices) -> dict[str, Any]:
    """Return what a worker says of a task, more or less."""
    state = choices.pick(STATES)
    failed = state in ("FAILURE", "RETRY", "REVOKED") and choices.number(8)
    said = {
        "task_id": choices.pick(NAMED),
        "status": state,
        "result": error(choices, 0) if failed else value(choices),
        "traceback": choices.pick([None, "text", 5]),
        "children": [value(choices)] if choices.number(2) else [],
    }
    for _ in range(choices.number(3)):
        said[choices.pick([*said, "parent_id", "group_id", "date_done"])] = value(choices)
    if not choices.number(8):
        del said[choices.pick(list(said))]
    return said


#: Those that kombu knows by name, each with more behind it than it seems.
COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "application/x-gzip": zlib.compress,
    "application/x-bz2": bz2.compress,
    "application/x-lzma": lambda body: lzma.compress(body, preset=0),
}
_BOMBS = {method: compress(bytes(2_000_000)) for method, compress in COMPRESSIONS.items()}


def body(choices: Choices) -> bytes:
    """Return a body, as yet uncompressed."""
    kind = choices.number(12)
    if kind == 0:
        return choices.noise()
    if kind == 1:
        return choices.pick([b"[", b'{"a":', b'{"__type__":']) * choices.pick([5, 50, 500, 1500])
    if kind == 2:
        return pickle.dumps({"task_id": IDS[0], "status": "SUCCESS", "result": Payload()})
    if kind == 3:
        return b'{"task_id":"t","status":"SUCCESS","result":' + b"9" * choices.number(5000) + b"}"
    said = json.dumps(meta(choices)).encode("utf-8", "surrogatepass")
    if kind == 4:
        return said[: choices.number(len(said))]
    if kind == 5:
        at = choices.number(len(said))
        return said[:at] + choices.noise() + said[at + 1 :]
    if kind == 6:
        return said.decode().encode(choices.pick(["utf-16", "utf-7", "utf-8-sig"]))
    return said


def compressed(choices: Choices) -> tuple[Any, bytes]:
    """Return the name of a method, or what stands in its place, and a body."""
    if choices.number(4):
        return None, body(choices)
    method = choices.pick(list(COMPRESSIONS))
    packed = COMPRESSIONS[method](body(choices)) if choices.number(8) else _BOMBS[method]
    if not choices.number(3):
        packed = packed[: choices.number(len(packed))]
    named = choices.pick([method, method, *COMPRESSIONS, "zstd", "none", "\ud800", ["a"], {}, 5])
    return named, packed


CONTENT_TYPES = [
    "application/json",
    "application/x-python-serialize",
    "application/x-yaml",
    "application/x-msgpack",
    "application/data",
    "application/text",
    "text/\nforged\x1b",
    None,
]
ENCODINGS = [
    "utf-8",
    "binary",
    "bz2",
    "zlib",
    "utf-16",
    "idna",
    "punycode",
    "nothing",
    "\ud800",
    None,
]

#: A body, and what is said of it.
HostileMessage = tuple[bytes, Properties]


def message(choices: Choices) -> HostileMessage:
    """Return a message as a transport hands it over."""
    method, content = compressed(choices)
    json_first = [CONTENT_TYPES[0]] * 8 + CONTENT_TYPES
    headers: Any = {} if method is None else {"compression": method}
    for _ in range(choices.number(4)):
        name = choices.pick(["ticket", "clock", "expires", "compression", "x"])
        headers[name] = value(choices)
    properties = Properties(
        choices.pick(json_first),
        choices.pick(ENCODINGS),
        headers or None,
        choices.pick([*NAMED, *NAMED, None, "\ud800", "x" * 255]),
    )
    return content, properties


def stored(choices: Choices) -> bytes:
    """Return what somebody may have written into Redis."""
    method, content = compressed(choices)
    if method is None and choices.number(8):
        return content
    name = str(method).encode("utf-8", "surrogatepass")
    return b"\0celery-compressed\0" + choices.pick([name, choices.noise()]) + b"\0" + content


def properties(choices: Choices) -> bytes:
    """Return flags and properties, encoded."""
    kind = choices.number(6)
    if kind == 0:
        return choices.noise() + choices.noise()
    if kind == 1:
        flags = choices.number(65536).to_bytes(2, "big")
        return flags + b"".join(short(choices.noise()) for _ in range(choices.number(8)))
    if kind == 2:
        table = long(choices.noise())
        for _ in range(choices.pick([1, 5, 50, 600])):
            table = long(b"\x01aF" + table)
        return b"\x20\x00" + table
    if kind == 3:  # those of a result, but for the id
        told = short(b"application/json") + short(b"utf-8")
        odd = [b"\xff" * 36, b"\xed\xa0\x80" * 12, b"x" * 36, IDS[0].encode(), b""]
        return b"\xc4\x00" + told + short(choices.pick(odd)) + choices.noise()
    if kind == 4:
        return b"\x00\x40" + choices.take(8)
    _, told = message(choices)
    given = told._asdict() | {"headers": None}
    known = {name: given[name] for name in given if given[name] is not None}
    return Message(b"", **known)._serialize_properties()


#: The channels that messages are received and published on. aiormq has the others.
CONSUMER, PUBLISHER = 1, 2


def frame(kind: int, channel: int, payload: bytes) -> bytes:
    return FRAME.pack(kind, channel, len(payload)) + payload + b"\xce"


def content(channel: int, told: bytes, size: int) -> bytes:
    return frame(HEADER, channel, b"\0\x3c\0\0" + size.to_bytes(8, "big") + told)


def delivery(told: bytes, said: bytes, piece: int = 100_000) -> bytes:
    """Return the frames of a message that is delivered."""
    arguments = short(b"tag") + (1).to_bytes(8, "big") + b"\0" + short(b"") + short(b"queue")
    frames = [frame(METHOD, CONSUMER, Method.DELIVER.to_bytes(4, "big") + arguments)]
    frames.append(content(CONSUMER, told, len(said)))
    for at in range(0, len(said), piece):
        frames.append(frame(BODY, CONSUMER, said[at : at + piece]))
    return b"".join(frames)


def broken_frame(choices: Choices) -> bytes:
    """Return what no broker sends."""
    channel = choices.pick([CONSUMER, PUBLISHER, 0, 3, 65535])
    kind = choices.number(7)
    if kind == 0:
        return choices.noise()
    if kind == 1:
        return frame(choices.number(10), channel, choices.noise())
    if kind == 2:  # there never is as much
        return FRAME.pack(choices.number(4), channel, 2**32 - 1 - choices.number(2**31))
    if kind == 3:
        size = choices.pick([0, 1, 2**32, 2**63, 2**64 - 1])
        return content(channel, properties(choices), size)
    if kind == 4:
        methods = [Method.DELIVER, Method.ACK, Method.NACK, Method.RETURN, Method.CHANNEL_CLOSE]
        method = choices.pick(methods).to_bytes(4, "big")
        return frame(METHOD, channel, method[: choices.number(5)] + choices.noise())
    if kind == 5:
        return frame(BODY, channel, choices.noise())
    whole = delivery(properties(choices), body(choices))
    at = choices.number(len(whole))
    return whole[:at] + choices.noise() + whole[at + choices.number(8) :]


def stream(choices: Choices) -> bytes:
    """Return frames of all kinds, with some among them that no broker sends."""
    pieces = []
    for _ in range(12):
        kind = choices.number(8)
        if kind < 5:
            channel = choices.number(65_536)
            pieces.append(frame(choices.number(9), channel, choices.noise() * choices.number(20)))
        elif kind < 7:
            pieces.append(delivery(choices.noise(), choices.noise(), choices.pick([1, 100])))
        else:
            pieces.append(broken_frame(choices))
        if not choices:
            break
    return b"".join(pieces)


def chunks(whole: bytes, choices: Choices) -> Iterator[bytes]:
    """Cut a stream anywhere."""
    at = 0
    while at < len(whole):
        size = choices.pick([4096, 1, 7, 8, 100, 300_000])
        yield whole[at : at + size]
        at += size
