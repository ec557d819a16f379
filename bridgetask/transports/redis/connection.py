"""Connections to Redis through redis.asyncio: sentinels, login, TLS, and errors of our own.

redis-py connects, logs in and speaks the protocol. Connecting *again* is left to those who use a
connection: only they know what they have lost by it. None of redis-py's pools and retries is used.
"""

from __future__ import annotations

import asyncio
from typing import Any

from redis.asyncio.connection import Connection, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.sentinel import Sentinel

from ...errors import BackendUnreachable, InvalidOption
from .errors import translating
from .settings import RedisSettings

__all__ = ["RedisConnector", "drop"]

_CLASSES: dict[str, Any] = {
    "tcp": Connection,
    "tls": SSLConnection,
    "unix": UnixDomainSocketConnection,
}


class RedisConnector:
    """Opens connections as an app's configuration says."""

    def __init__(self, settings: RedisSettings) -> None:
        self._settings = settings

    async def open(self) -> Connection:
        """Connect and log in.

        The connection is for raw bytes and RESP2, and has no deadlines of its own.

        :raises BackendRefused: the server turned the login, or the database, down.
        :raises BackendUnreachable: no server could be connected to.
        :raises InvalidOption: redis-py does not know one of the options.
        """
        settings = self._settings
        with translating(f"can't connect to {settings.address}"):
            async with asyncio.timeout(settings.connect_timeout):
                # In a thread, for it reads files: certificates, and redis-py its own version.
                connection = await asyncio.to_thread(self._make, await self._parameters())
                try:
                    await connection.connect()
                except BaseException:
                    drop(connection)
                    raise
                return connection

    async def _parameters(self) -> dict[str, Any]:
        settings = self._settings
        parameters = dict(settings.parameters)
        if settings.credential_provider is not None:
            # These ask services for tokens, some of them by blocking.
            try:
                credentials = await asyncio.to_thread(settings.credential_provider.get_credentials)
            except Exception as error:  # what it says may tell a secret
                raise BackendUnreachable(
                    f"can't connect to {settings.address}: "
                    f"{type(error).__name__} while asking for the password"
                ) from error
            parameters |= zip(("password", "username"), reversed(credentials), strict=False)
        if settings.sentinels:
            parameters["host"], parameters["port"] = await self._master()
        return parameters

    def _make(self, parameters: dict[str, Any]) -> Connection:
        settings = self._settings
        try:
            connection: Connection = _CLASSES[settings.connection](
                **parameters,
                protocol=2,
                socket_timeout=None,
                socket_connect_timeout=settings.connect_timeout,
            )
        except TypeError as error:
            raise InvalidOption("result_backend", f"can't be used: {error}") from error
        if isinstance(connection, SSLConnection):
            connection.ssl_context.get()
        return connection

    async def _master(self) -> tuple[str, int]:
        settings = self._settings
        limits = dict.fromkeys(
            ("socket_timeout", "socket_connect_timeout"),
            settings.connect_timeout / (len(settings.sentinels) + 1),
        )
        sentinel = await asyncio.to_thread(
            Sentinel,
            settings.sentinels,
            min_other_sentinels=settings.min_other_sentinels,
            sentinel_kwargs={**limits, **settings.sentinel_parameters},
        )
        try:
            host, port = await sentinel.discover_master(str(settings.master_name))
        finally:
            for client in sentinel.sentinels:
                await client.aclose()
        return str(host), int(port)


def drop(connection: Connection) -> None:
    """Close a connection on the spot. What was on its way is lost."""
    writer = connection._writer
    connection._reader = connection._writer = None  # else redis-py warns, and closes it once more
    if writer is not None:
        writer.transport.abort()
