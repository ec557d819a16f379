"""The process behind ``fix_proxy.Proxy``: a TCP proxy on loopback that does harm when told to.

Reads one command a line from its standard input, as JSON, and answers each with a line. It ends
with its input. Run by path; needs nothing but the standard library.
"""

from __future__ import annotations

import asyncio
import copy
import json
import socket
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

#: Method frames of AMQP that confirm a publish: class 60, ``basic.ack`` and ``basic.nack``.
_CONFIRMS = {(60, 80), (60, 120)}
#: ``connection.close`` as an operator's ``close_all_connections`` sends it.
_REASON = b"CONNECTION_FORCED - told to"
_CLOSE = struct.pack(">HHHB", 10, 50, 320, len(_REASON)) + _REASON + bytes(4)
_CLOSE_FRAME = struct.pack(">BHI", 1, 0, len(_CLOSE)) + _CLOSE + b"\xce"


@dataclass
class Rules:
    """What is done to the bytes of one direction."""

    stalled: bool = False
    dropping: bool = False
    delay: float = 0.0
    bytes_per_second: float | None = None
    #: Seconds to hold confirms back, or for ever; None lets them pass.
    hold_confirms: float | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def __deepcopy__(self, memo: dict[int, Any]) -> Rules:
        values = {**self.__dict__, "changed": asyncio.Event()}
        return Rules(**values)

    def change(self, **values: Any) -> None:
        for name, value in values.items():
            setattr(self, name, value)
        self.changed.set()
        self.changed = asyncio.Event()

    async def unstalled(self) -> None:
        while self.stalled:
            await self.changed.wait()


class Direction:
    """Bytes from one side of a connection to the other."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        rules: Rules,
        *,
        framed: bool,
    ) -> None:
        self.rules = rules
        self.writer = writer
        self._reader = reader
        self._framed = framed
        self._buffer = b""
        self._ended = False
        #: Whether the other side is out of reach for good: a stream that lost bytes is no use.
        self.dead = rules.dropping
        self._outgoing: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            sending = group.create_task(self._send())
            await self._receive()
            await self._outgoing.put((0.0, b""))
            await sending

    async def _receive(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self.rules.unstalled()
            data = await self._reader.read(65536)
            await self.rules.unstalled()
            if not data and self.dead:
                await asyncio.Event().wait()  # nobody hears that it is gone
            if not data:
                return
            if not self.dead:
                for piece in self._pieces(data):
                    self._outgoing.put_nowait((loop.time() + self.rules.delay, piece))

    def _pieces(self, data: bytes) -> Iterator[bytes]:
        if not self._framed:
            yield data
            return
        passed = bytearray()
        for frame in self._frames(data):
            hold = self.rules.hold_confirms
            if hold is None or not _is_confirm(frame):
                passed += frame
            elif hold != float("inf"):
                asyncio.get_running_loop().call_later(hold, self._write_late, frame)
        if passed:
            yield bytes(passed)

    def _frames(self, data: bytes) -> Iterator[bytes]:
        self._buffer += data
        start = 0
        while len(self._buffer) - start >= 8:
            end = start + 8 + struct.unpack_from(">I", self._buffer, start + 3)[0]
            if len(self._buffer) < end:
                break
            yield self._buffer[start:end]
            start = end
        self._buffer = self._buffer[start:]

    async def _send(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due, data = await self._outgoing.get()
            if not data:
                break
            await asyncio.sleep(max(0.0, due - loop.time()))
            await self.rules.unstalled()
            if self.rules.bytes_per_second is not None:
                await asyncio.sleep(len(data) / self.rules.bytes_per_second)
            if not self._ended:
                self.writer.write(data)
                await self.writer.drain()
        self.half_close()

    def _write_late(self, data: bytes) -> None:
        if not self._ended:
            self.writer.write(data)

    def say(self, frame: bytes) -> None:
        """Put in a frame of our own, behind those that are on their way."""
        self._outgoing.put_nowait((0.0, frame))

    def half_close(self) -> None:
        self._ended = True
        if self.writer.can_write_eof() and not self.writer.is_closing():
            self.writer.write_eof()


def _is_confirm(frame: bytes) -> bool:
    return frame[0] == 1 and struct.unpack_from(">HH", frame, 7) in _CONFIRMS


class ProxyServer:
    """Carries connections to ``upstream``, under rules that commands change."""

    def __init__(self, upstream: int, *, framed: bool) -> None:
        self._upstream = upstream
        self._framed = framed
        self._port = 0
        self._server: asyncio.Server | None = None
        self._rules = {"up": Rules(), "down": Rules()}
        self._connections: dict[asyncio.Task[None], dict[str, Direction]] = {}
        self._accepted = 0

    # Commands.

    async def listen(self) -> int:
        if self._server is None:
            self._server = await asyncio.start_server(self._accept, "127.0.0.1", self._port)
            self._port = self._server.sockets[0].getsockname()[1]
        return self._port

    def refuse(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def cut(self) -> None:
        tasks = list(self._connections)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def change(self, direction: str, rules: dict[str, Any]) -> None:
        for name in ("up", "down") if direction == "both" else (direction,):
            self._rules[name].change(**rules)
            for directions in self._connections.values():
                directions[name].rules.change(**rules)
                directions[name].dead |= directions[name].rules.dropping

    def half_close(self, direction: str) -> None:
        for directions in self._connections.values():
            directions[direction].half_close()

    def force_close(self) -> None:
        for directions in self._connections.values():
            directions["down"].say(_CLOSE_FRAME)

    async def restore(self) -> None:
        self.change("both", {k: v for k, v in Rules().__dict__.items() if k != "changed"})
        await self.listen()

    def status(self) -> dict[str, int]:
        return {"accepted": self._accepted, "open": len(self._connections)}

    async def obey(self, command: dict[str, Any]) -> Any:
        done = getattr(self, command.pop("verb"))(**command)
        return await done if asyncio.iscoroutine(done) else done

    # Connections.

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._accepted += 1
        task = asyncio.current_task()
        assert task is not None
        rules = copy.deepcopy(self._rules)
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._upstream)
        except OSError:
            _reset(writer)
            return
        directions = {
            "up": Direction(reader, up_writer, rules["up"], framed=False),
            "down": Direction(up_reader, writer, rules["down"], framed=self._framed),
        }
        self._connections[task] = directions
        try:
            async with asyncio.TaskGroup() as group:
                for each in directions.values():
                    group.create_task(each.run())
        except* (OSError, asyncio.CancelledError):
            pass
        finally:
            del self._connections[task]
            for each in directions.values():
                _reset(each.writer)


def _reset(writer: asyncio.StreamWriter) -> None:
    connected = writer.get_extra_info("socket")
    if connected is not None and connected.fileno() != -1:
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def main(upstream: int, framed: bool) -> None:
    server = ProxyServer(upstream, framed=framed)
    commands = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(commands)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
    while line := await commands.readline():
        print(json.dumps(await server.obey(json.loads(line))), flush=True)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), framed=sys.argv[2] == "amqp"))
