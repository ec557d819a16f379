"""One Redis, or one master among sentinels, and how to connect to it."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = [
    "CONNECT_TIMEOUT",
    "HEALTH_CHECK_INTERVAL",
    "ConnectionKind",
    "RedisServer",
    "address_of",
    "kind_of",
    "parameters_of",
]

ConnectionKind = Literal["tcp", "tls", "unix"]

#: Seconds that connecting to Redis may take where the app does not say.
CONNECT_TIMEOUT = 5.0
#: Seconds between questions whether Redis is still there, where the app does not say.
HEALTH_CHECK_INTERVAL = 25.0
#: What Celery and kombu read for redis-py that is ours to decide: pooling, deadlines, raw bytes.
_NOT_FOR_CONNECTIONS = {
    "connection_class",
    "credential_provider",
    "decode_responses",
    "encoding",
    "encoding_errors",
    "health_check_interval",
    "hosts",
    "max_connections",
    "protocol",
    "retry_on_timeout",
    "socket_connect_timeout",
    "socket_timeout",
}
#: Parameters that do not tell one server, or one user of it, from another.
_OF_THE_CONNECTION = {"client_name", "db", "socket_keepalive", "socket_keepalive_options"}


@dataclass(frozen=True, slots=True)
class RedisServer:
    """One Redis, or one master among sentinels, and how to connect to it."""

    #: Celery's setting that names it.
    option: str
    #: The URL, without credentials.
    address: str
    connection: ConnectionKind
    #: redis-py's parameters of a connection: host, port, db, password, client_name, ssl_* ...
    parameters: Mapping[str, Any] = field(repr=False)
    #: redis-py's ``CredentialProvider``, or None.
    credential_provider: Any = field(repr=False)
    #: Host and port of each sentinel; empty where there are none.
    sentinels: tuple[tuple[str, int], ...]
    #: How sentinels know the master.
    master_name: str | None
    #: redis-py's parameters of a connection to a sentinel.
    sentinel_parameters: Mapping[str, Any] = field(repr=False)
    min_other_sentinels: int
    #: Seconds that connecting may take, and that an answer may.
    connect_timeout: float
    answer_timeout: float
    #: Seconds of silence after which to ask whether the server is still there; 0 for never.
    health_check_interval: float

    @property
    def db(self) -> int:
        """The number of the database."""
        return int(self.parameters.get("db") or 0)

    def is_same(self, other: RedisServer) -> bool:
        """Tell whether a connection to this one serves for the other one, but for the database."""
        return self._identity == other._identity

    @property
    def _identity(self) -> tuple[Any, ...]:
        parameters = {
            name: value
            for name, value in self.parameters.items()
            if value is not None and name not in _OF_THE_CONNECTION
        }
        if parameters.get("host") == "localhost":
            parameters["host"] = "127.0.0.1"
        return (
            self.connection,
            parameters if not self.sentinels else {**parameters, "host": None, "port": None},
            self.credential_provider,
            self.sentinels,
            self.master_name,
        )


def kind_of(connection_class: type | None) -> ConnectionKind:
    """Tell which kind of connection one of redis-py's classes is for."""
    names = {each.__name__ for each in getattr(connection_class, "__mro__", ())}
    if "SSLConnection" in names:
        return "tls"
    return "unix" if "UnixDomainSocketConnection" in names else "tcp"


def parameters_of(given: Mapping[str, Any], connection: ConnectionKind) -> dict[str, Any]:
    """Return what redis-py's connections take, of what Celery or kombu read for its clients."""
    parameters = {key: value for key, value in given.items() if key not in _NOT_FOR_CONNECTIONS}
    required = parameters.get("ssl_cert_reqs")
    if isinstance(required, ssl.VerifyMode):  # redis-py before 5.1 takes texts alone
        parameters["ssl_cert_reqs"] = required.name.removeprefix("CERT_").lower()
    return parameters


def address_of(
    given: Mapping[str, Any], connection: ConnectionKind, sentinels: tuple[tuple[str, int], ...]
) -> str:
    """Return the URL of a server, without credentials."""
    if sentinels:
        return "sentinel://" + ",".join(f"{host}:{port}" for host, port in sentinels)
    if connection == "unix":
        return f"redis+socket://{given['path']}?virtual_host={given['db']}"
    scheme = "rediss" if connection == "tls" else "redis"
    return f"{scheme}://{given['host']}:{given['port']}/{given['db']}"
