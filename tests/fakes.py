"""Stand-ins for faults that a real RabbitMQ can't be made to show on demand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Proxy:
    """A TCP proxy on loopback that can be cut, or made to swallow what the broker says."""

    def __init__(self, port: int) -> None:
        self._upstream = port
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        #: Whether what the broker says is thrown away.
        self.mute = False
        #: Seconds that what the server says is held back.
        self.delay = 0.0
        #: Whether new connections are turned away.
        self.refuse = False
        self.accepted = 0

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def cut(self) -> None:
        """Drop all connections."""
        for writer in list(self._writers):
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        if self.refuse:
            writer.transport.abort()
            return
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._upstream)
        both = {writer, up_writer}
        self._writers |= both
        try:
            await asyncio.gather(
                self._pump(reader, up_writer), self._pump(up_reader, writer, muted=True)
            )
        finally:
            self._writers -= both
            for each in both:
                each.transport.abort()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, muted: bool = False
    ) -> None:
        try:
            while data := await reader.read(65536):
                if muted and self.delay:
                    await asyncio.sleep(self.delay)
                if not (muted and self.mute):
                    writer.write(data)
                    await writer.drain()
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()


@asynccontextmanager
async def proxy(port: int) -> AsyncIterator[Proxy]:
    """Yield a proxy in front of ``port``."""
    running = Proxy(port)
    await running.start()
    try:
        yield running
    finally:
        await running.stop()
