"""Which Redis a Celery app sends to and receives from, as kombu's transport reads it.

Reading it does no I/O: a channel of kombu's tells what it would make its client with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import inf
from typing import TYPE_CHECKING, Any

from kombu.exceptions import VersionMismatch
from kombu.utils.url import parse_url

from ...errors import InvalidOption
from ..failover import Failover
from .channel import KombuCommands
from .server import (
    CONNECT_TIMEOUT,
    HEALTH_CHECK_INTERVAL,
    RedisServer,
    address_of,
    kind_of,
    parameters_of,
)

if TYPE_CHECKING:
    from celery import Celery
    from kombu import Connection

__all__ = ["RedisBrokerSettings"]

#: Seconds without a word, while an answer is owed, after which a server is taken for dead, where
#: the app does not say; and at most. A send has 30 s in all, and is to be sent again in them.
_ANSWER_TIMEOUT, _LONGEST_ANSWER = 10.0, 30.0
_SENTINEL_PORT = 26379


@dataclass(frozen=True, slots=True)
class RedisBrokerSettings:
    """The servers to send by, and those to receive by."""

    write: Failover[RedisServer]
    read: Failover[RedisServer]

    @classmethod
    def from_app(cls, app: Celery, *, heartbeat: float | None = None) -> RedisBrokerSettings:
        """Read an app's configuration.

        :param heartbeat: seconds after which a silent server is taken for dead, 0 for never; None
            takes what the transport's options say, or 10.
        :raises InvalidOption: the configuration can't be used.
        """
        write, read = (
            _servers(app, setting, connect, heartbeat)
            for setting, connect in (
                ("broker_write_url", app.connection_for_write),
                ("broker_read_url", app.connection_for_read),
            )
        )
        return cls(write, read)


def _servers(
    app: Celery, setting: str, connect: Callable[..., Connection], heartbeat: float | None
) -> Failover[RedisServer]:
    try:
        connection = connect()
        urls = tuple(connection.alt) or (getattr(app.conf, setting),)
        sentinels = _sentinels(connection, urls)
        if sentinels or len(urls) == 1:
            urls, connections = urls[:1], [connection]
        else:
            connections = [connect(url) for url in urls]
        servers = tuple(_server(each, sentinels, heartbeat) for each in connections)
    except InvalidOption:
        raise
    except VersionMismatch as error:
        raise InvalidOption("broker_url", str(error)) from error
    except ImportError as error:
        raise InvalidOption("broker_transport_options", f"can't be used: {error}") from error
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        # What these say may quote the password.
        of_database = str(error).startswith("Database is int")
        problem = "the database must be a number" if of_database else "can't be used"
        raise InvalidOption("broker_url", problem) from None
    return Failover(
        servers=servers, strategy=app.conf.broker_failover_strategy or "round-robin", urls=urls
    )


def _sentinels(connection: Connection, urls: tuple[str, ...]) -> tuple[tuple[str, int], ...]:
    """Return host and port of each sentinel; nothing where it is no sentinels that are named.

    Follows ``kombu.transport.redis.SentinelChannel``.
    """
    if not hasattr(connection.transport.Channel, "_sentinel_managed_pool"):
        return ()
    parts = [parse_url(url) for url in urls if url.startswith("sentinel://")]
    found = [(each["hostname"] or "localhost", each["port"] or _SENTINEL_PORT) for each in parts]
    found = found or [(connection.hostname or "localhost", connection.port or _SENTINEL_PORT)]
    return tuple(found)


def _server(
    connection: Connection, sentinels: tuple[tuple[str, int], ...], heartbeat: float | None
) -> RedisServer:
    commands = KombuCommands(connection)
    given, options = commands.client_parameters, commands.options
    if "@" in str(given.get("host")):  # a URL without a scheme, with all that is in it
        raise ValueError
    if sentinels and not options.get("master_name"):
        raise InvalidOption("broker_transport_options", "sentinel:// needs a master_name")
    kind = kind_of(given.get("connection_class"))
    parameters = parameters_of(given, kind)
    if sentinels:
        parameters.pop("host", None)
        parameters.pop("port", None)
    answer_timeout = min(_seconds(given, "socket_timeout") or _ANSWER_TIMEOUT, _LONGEST_ANSWER)
    connect_timeout = _seconds(given, "socket_connect_timeout") or connection.connect_timeout
    server = RedisServer(
        option="broker_url",
        address=address_of(given, kind, sentinels),
        connection=kind,
        parameters={name: each for name, each in parameters.items() if each is not None},
        credential_provider=given.get("credential_provider"),
        sentinels=sentinels,
        master_name=options.get("master_name"),
        sentinel_parameters=options.get("sentinel_kwargs") or {},
        min_other_sentinels=options.get("min_other_sentinels") or 0,
        connect_timeout=float(connect_timeout or CONNECT_TIMEOUT),
        answer_timeout=answer_timeout,
        health_check_interval=_seconds(
            {"health_check_interval": HEALTH_CHECK_INTERVAL, **given}, "health_check_interval"
        ),
    )
    if heartbeat is None:
        return server
    return replace(server, answer_timeout=heartbeat or inf, health_check_interval=heartbeat)


def _seconds(given: Mapping[str, Any], name: str) -> float:
    """Return a number of seconds, 0 where it is not given.

    :raises InvalidOption: it is no number.
    """
    try:
        return float(given.get(name) or 0)
    except (TypeError, ValueError):
        raise InvalidOption(
            "broker_transport_options", f"{name} must be a number of seconds"
        ) from None
