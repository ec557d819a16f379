"""Opens the socket of a connection to RabbitMQ, and drops it when RabbitMQ falls silent."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Mapping
from typing import Any

import aiormq.connection
from yarl import URL

from .reader import FrameReader
from .settings import Server

__all__ = ["SocketFactory", "tls_context"]

logger: logging.Logger = logging.getLogger(__name__)


class SocketFactory(aiormq.connection.TransportFactory):
    """Opens aiormq's socket as Celery's ``broker_use_ssl`` says, with a reader of our own."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.reader: FrameReader | None = None
        self.writer: asyncio.StreamWriter | None = None
        self._watch: asyncio.TimerHandle | None = None

    async def create(
        self, url: URL, **__: Any
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        server = self._server
        options: dict[str, Any] = {}
        if server.tls is not None:
            # Reading certificates blocks.
            context, server_hostname = await asyncio.to_thread(tls_context, server)
            options = {"ssl": context, "server_hostname": server_hostname}
        # As asyncio.open_connection does it, but for the reader.
        loop = asyncio.get_running_loop()
        self.reader = FrameReader(loop)
        protocol = asyncio.StreamReaderProtocol(self.reader, loop=loop)
        transport, _ = await loop.create_connection(
            lambda: protocol, server.host, server.port, **options
        )
        self.reader.transport = transport
        self.writer = asyncio.StreamWriter(transport, protocol, self.reader, loop)
        return self.reader, self.writer

    def abort(self) -> None:
        """Drop the socket on the spot."""
        if self._watch is not None:
            self._watch.cancel()
        if self.writer is not None:
            self.writer.transport.abort()

    def watch(self) -> None:
        """Drop the socket once nothing has come for as long as the heartbeat says.

        RabbitMQ sends at least twice in that time. aiormq would wait three times as long.
        """
        if self._server.heartbeat:
            loop = asyncio.get_running_loop()
            self._watch = loop.call_later(self._server.heartbeat / 4, self._check, loop)

    def _check(self, loop: asyncio.AbstractEventLoop) -> None:
        assert self.reader is not None
        assert self.writer is not None
        if self.writer.transport.is_closing():
            return
        if self.reader.is_held:
            self.reader.show_life()
            self.watch()
            return
        # What came while the loop was blocked was read before this: it reads sockets before timers.
        silence = loop.time() - self.reader.last_time
        if silence > self._server.heartbeat:
            logger.warning("%s has been silent for %.1f s; dropping it", self._server, silence)
            self.abort()
        else:
            self.watch()


def tls_context(server: Server) -> tuple[ssl.SSLContext, str]:
    """Return the context and the host name that py-amqp's ``SSLTransport`` would use.

    Follows ``_wrap_socket_sni``: it verifies certificates unless ``cert_reqs`` says otherwise, and
    host names only if ``server_hostname`` is given. There, None means the URL's host.
    """
    options = dict(server.tls) if isinstance(server.tls, Mapping) else {}
    checks_name = "server_hostname" in options
    hostname = options.pop("server_hostname", None) or server.host
    if "context" in options:  # follows ``_wrap_context``
        given = dict(options["context"])
        check_hostname = given.pop("check_hostname", None)
        context = ssl.create_default_context(**given)
        context.check_hostname = bool(check_hostname)
        return context, hostname
    context = ssl.SSLContext(options.get("ssl_version") or ssl.PROTOCOL_TLS_CLIENT)
    if options.get("tls_minimum_version") is not None:
        context.minimum_version = options["tls_minimum_version"]
    if options.get("tls_maximum_version") is not None:
        context.maximum_version = options["tls_maximum_version"]
    if options.get("certfile") is not None:
        context.load_cert_chain(options["certfile"], options.get("keyfile"))
    if options.get("ca_certs") is not None:
        context.load_verify_locations(options["ca_certs"])
    if options.get("ciphers") is not None:
        context.set_ciphers(options["ciphers"])
    context.check_hostname = checks_name  # before verify_mode: CERT_NONE forbids it
    if options.get("cert_reqs") is not None:
        context.verify_mode = ssl.VerifyMode(options["cert_reqs"])
    if options.get("ca_certs") is None and context.verify_mode != ssl.CERT_NONE:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    return context, hostname
