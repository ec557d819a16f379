"""Connections to Redis through redis.asyncio: sentinels, login, TLS, and errors of our own.

redis-py connects, logs in and speaks the protocol. Connecting *again* is left to those who use a
connection: only they know what they have lost by it. None of redis-py's pools and retries is used.
"""

from __future__ import annotations

import asyncio
from typing import Any

from redis.asyncio.connection import Connection, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.sentinel import Sentinel

from ...errors import InvalidOption
from ..failover import Failover, Rounds
from .errors import Denied, RedisError, Unreachable, translating
from .server import RedisServer
from .stream import RedisStream, drop

__all__ = ["FailoverConnector", "RedisConnector"]

_CLASSES: dict[str, Any] = {
    "tcp": Connection,
    "tls": SSLConnection,
    "unix": UnixDomainSocketConnection,
}


class RedisConnector:
    """Opens connections as an app's configuration says."""

    def __init__(self, server: RedisServer) -> None:
        self.server: RedisServer = server

    async def open(self) -> RedisStream:
        """Connect and log in.

        :raises Denied: the server turned the login, or the database, down.
        :raises Unreachable: no server could be connected to.
        :raises InvalidOption: redis-py does not know one of the options.
        """
        server = self.server
        with translating(f"can't connect to {server.address}"):
            async with asyncio.timeout(server.connect_timeout):
                # In a thread, for it reads files: certificates, and redis-py its own version.
                connection = await asyncio.to_thread(self._make, await self._parameters())
                try:
                    await connection.connect()
                except BaseException:
                    drop(connection)
                    raise
                return RedisStream(connection, server.address)

    def serves(self, server: RedisServer) -> bool:
        """Tell whether its connections lead to a server, whatever their database is."""
        return self.server.is_same(server)

    def turned_away(self) -> None:
        """Do nothing: there is no other server to go to, or sentinels know which one it is."""

    async def _parameters(self) -> dict[str, Any]:
        server = self.server
        parameters = dict(server.parameters)
        if server.credential_provider is not None:
            # These ask services for tokens, some of them by blocking.
            try:
                credentials = await asyncio.to_thread(server.credential_provider.get_credentials)
            except Exception as error:  # what it says may tell a secret
                raise Unreachable(
                    f"can't connect to {server.address}: "
                    f"{type(error).__name__} while asking for the password"
                ) from error
            parameters |= zip(("password", "username"), reversed(credentials), strict=False)
        if server.sentinels:
            parameters["host"], parameters["port"] = await self._master()
        return parameters

    def _make(self, parameters: dict[str, Any]) -> Connection:
        server = self.server
        try:
            connection: Connection = _CLASSES[server.connection](
                **parameters,
                protocol=2,
                socket_timeout=None,
                socket_connect_timeout=server.connect_timeout,
            )
        except TypeError as error:
            raise InvalidOption(server.option, f"can't be used: {error}") from error
        if isinstance(connection, SSLConnection):
            connection.ssl_context.get()
        return connection

    async def _master(self) -> tuple[str, int]:
        server = self.server
        limits = dict.fromkeys(
            ("socket_timeout", "socket_connect_timeout"),
            server.connect_timeout / (len(server.sentinels) + 1),
        )
        sentinel = await asyncio.to_thread(
            Sentinel,
            server.sentinels,
            min_other_sentinels=server.min_other_sentinels,
            sentinel_kwargs={**limits, **server.sentinel_parameters},
        )
        try:
            host, port = await sentinel.discover_master(str(server.master_name))
        finally:
            for client in sentinel.sentinels:
                await client.aclose()
        return str(host), int(port)


class FailoverConnector:
    """Opens connections to the first server of a list that can be connected to."""

    def __init__(self, servers: Failover[RedisServer]) -> None:
        self._servers = servers
        self._rounds = Rounds(servers)

    @property
    def server(self) -> RedisServer:
        """The server that was tried last, or is to be tried first."""
        return self._rounds.current

    async def open(self) -> RedisStream:
        """Connect and log in, trying each server once.

        :raises Denied: every server turned the login, or the database, down.
        :raises Unreachable: no server could be connected to.
        :raises InvalidOption: redis-py does not know one of the options.
        """
        problems: list[RedisError] = []
        for server in self._rounds.round():
            try:
                return await RedisConnector(server).open()
            except RedisError as error:
                problems.append(error)
        all_denied = all(isinstance(problem, Denied) for problem in problems)
        kind = Denied if all_denied else Unreachable
        raise kind("; ".join(map(str, problems))) from problems[-1].__cause__

    def serves(self, server: RedisServer) -> bool:
        """Tell whether its connections lead to a server, whatever their database is."""
        return all(each.is_same(server) for each in self._servers.servers)

    def turned_away(self) -> None:
        """Try another server next, if there is one."""
        self._rounds.skip()
