"""aio-pika's connection, over a socket that we open."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import aio_pika
import aiormq
import aiormq.exceptions
import pamqp.commands
import pamqp.exceptions
import pamqp.frame
from yarl import URL

from .reader import FrameReader
from .settings import Server
from .socket import SocketFactory

__all__ = ["AioPikaConnection"]

#: A frame's size has 32 bits.
_ANY_SIZE = 2**32


class AioPikaConnection(aio_pika.Connection):
    """aio-pika's connection over a socket that we open, and can drop."""

    def __init__(self, server: Server, name: str) -> None:
        password = server.password() if callable(server.password) else server.password
        url = URL.build(
            scheme="amqp" if server.tls is None else "amqps",
            host=server.host,
            port=server.port,
            user=server.user,
            password=password,
            path="/" + server.virtual_host,
            query={
                "heartbeat": str(server.heartbeat),
                "auth": server.login_method.lower(),
                "name": name,
            },
        )
        super().__init__(url, client_properties=dict(server.client_properties))
        self._sockets = SocketFactory(server)
        self.kwargs["transport_factory"] = self._sockets

    async def connect(self, timeout: float | None = None) -> None:
        """Connect, agree on the size of frames, and watch for silence from then on."""
        await super().connect(timeout)
        reader, _ = self.streams
        assert self.transport is not None
        connection = self.transport.connection
        assert isinstance(connection, aiormq.Connection)
        reader.splitter.largest_frame = connection.connection_tune.frame_max or _ANY_SIZE
        self._sockets.watch()

    @property
    def is_blocked(self) -> bool:
        """Whether ``connection.blocked`` came, and ``connection.unblocked`` has not come since."""
        if self.transport is None:
            return False
        # aiormq tells only by a coroutine, which ends in its first step if it need not wait.
        ready = self.transport.connection.ready()
        try:
            ready.send(None)
        except StopIteration:
            return False
        ready.close()
        return True

    async def unblocked(self) -> None:
        """Return once ``connection.unblocked`` comes, or the connection is lost."""
        assert self.transport is not None
        ready = asyncio.ensure_future(self.transport.connection.ready())
        closing = self.transport.connection.closing
        try:
            await asyncio.wait({ready, closing}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ready.cancel()
            closing.cancel()

    def refusal(self) -> Exception | None:
        """Return the error of the broker's ``connection.close``, if that came last.

        aiormq expects ``connection.open-ok``, and its error does not say what came instead.
        """
        reader = self._sockets.reader
        if reader is None:
            return None
        with suppress(pamqp.exceptions.PAMQPException):
            _, _, frame = pamqp.frame.unmarshal(reader.last_data)
            if isinstance(frame, pamqp.commands.Connection.Close):
                return aiormq.exceptions.ConnectionClosed(frame.reply_code, frame.reply_text)
        return None

    @property
    def streams(self) -> tuple[FrameReader, asyncio.StreamWriter]:
        """The streams that aiormq reads from and writes to, once it is connected."""
        reader, writer = self._sockets.reader, self._sockets.writer
        assert reader is not None
        assert writer is not None
        return reader, writer

    def abort(self) -> None:
        self._sockets.abort()

    def __del__(self) -> None:
        """Keep aio-pika from closing it in a task, on whatever event loop runs by then."""
