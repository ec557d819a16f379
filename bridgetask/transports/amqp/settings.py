"""Reads from a Celery app's configuration which RabbitMQ it uses, and how to connect to it.

This does no I/O: kombu's own ``Connection`` parses the URLs, and connects only when it is asked to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from math import ceil
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from kombu.connection import failover_strategies

from ...errors import InvalidOption

if TYPE_CHECKING:
    from celery import Celery
    from kombu import Connection

__all__ = ["AmqpSettings", "BrokerSettings", "Server"]

#: The longest heartbeat in seconds that is taken from ``broker_heartbeat``, which is two minutes by
#: default. This side notices a dead connection after one heartbeat, and a send has 30 s in all.
#: RabbitMQ notices after up to three, and until then holds the results that it sent on it.
_LONGEST_HEARTBEAT = 10


@dataclass(frozen=True, slots=True)
class Server:
    """One broker that can be connected to."""

    host: str
    port: int
    user: str
    password: str | Callable[[], str] = field(repr=False)
    virtual_host: str
    login_method: str
    connect_timeout: float
    #: Seconds of silence after which the other side is taken for dead; 0 for never.
    heartbeat: int
    #: None where the connection is not encrypted, otherwise True or py-amqp's options.
    tls: bool | Mapping[str, Any] | None = field(repr=False)
    client_properties: Mapping[str, Any] = field(repr=False)

    def __str__(self) -> str:
        scheme = "amqp" if self.tls is None else "amqps"
        virtual_host = quote(self.virtual_host, safe="")
        return f"{scheme}://{quote(self.user, safe='')}:**@{self.host}:{self.port}/{virtual_host}"


@dataclass(frozen=True, slots=True)
class BrokerSettings:
    """The brokers that can serve one purpose, and the order in which to try them."""

    servers: tuple[Server, ...]
    #: Named strategy of kombu's, or a callable from the list of URLs to an iterator of them.
    failover_strategy: str | Callable[[list[str]], Iterator[str]]
    _urls: tuple[str, ...] = field(repr=False)

    def cycle(self) -> Iterator[Server]:
        """Return the servers to try, for ever, beginning with the first one configured.

        Follows ``kombu.Connection.__init__``, which skips the first one that a strategy yields.
        """
        yield self.servers[0]
        if len(self.servers) == 1:
            while True:
                yield self.servers[0]
        by_url = dict(zip(self._urls, self.servers, strict=True))
        strategy = failover_strategies.get(self.failover_strategy, self.failover_strategy)
        order = strategy(list(self._urls))
        next(order)
        for url in order:
            yield by_url[url]


@dataclass(frozen=True, slots=True)
class AmqpSettings:
    """The brokers to send to, and those to receive from."""

    write: BrokerSettings
    read: BrokerSettings

    @classmethod
    def from_app(cls, app: Celery, *, heartbeat: float | None = None) -> AmqpSettings:
        """Read an app's configuration.

        :param heartbeat: seconds after which a silent broker is taken for dead, 0 for never; None
            takes ``broker_heartbeat``, but at most 10.
        :raises InvalidOption: the configuration can't be used.
        """
        return cls(
            write=_broker(app, "broker_write_url", app.connection_for_write, heartbeat),
            read=_broker(app, "broker_read_url", app.connection_for_read, heartbeat),
        )


def _broker(
    app: Celery, setting: str, connect: Callable[..., Connection], heartbeat: float | None
) -> BrokerSettings:
    try:
        connection = connect()
        urls = tuple(connection.alt) or (getattr(app.conf, setting) or "amqp://",)
        connections = [connect(url) for url in urls] if len(urls) > 1 else [connection]
        servers = tuple(_server(app, each, heartbeat) for each in connections)
    except InvalidOption:
        raise
    except (ValueError, TypeError):  # what these say may quote the password
        raise InvalidOption("broker_url", "can't be parsed") from None
    return BrokerSettings(
        servers=servers,
        failover_strategy=app.conf.broker_failover_strategy or "round-robin",
        _urls=urls,
    )


def _server(app: Celery, connection: Connection, heartbeat: float | None) -> Server:
    info = connection.info()  # with the transport's defaults; amqps sets ssl while it is made
    options: Mapping[str, Any] = info["transport_options"] or {}
    if heartbeat is None:
        heartbeat = min(connection.heartbeat or app.conf.broker_heartbeat or 0, _LONGEST_HEARTBEAT)
    host = info["hostname"]
    if "@" in host:  # kombu takes a URL without a scheme for a host, with all that is in it
        raise ValueError
    return Server(
        host="127.0.0.1" if host == "localhost" else host,  # as kombu's pyamqp transport does
        port=int(info["port"]),
        user=info["userid"],
        password=info["password"],
        virtual_host=info["virtual_host"],
        login_method=_login_method(info["login_method"]),
        connect_timeout=float(connection.connect_timeout or 4),
        heartbeat=ceil(heartbeat),  # AMQP knows whole seconds only
        tls=connection.ssl or None,
        client_properties=options.get("client_properties") or {},
    )


def _login_method(name: str | None) -> str:
    """Return the SASL mechanism to use: PLAIN for AMQPLAIN, which takes the same credentials."""
    mechanism = (name or "PLAIN").upper()
    if mechanism == "AMQPLAIN":
        return "PLAIN"
    if mechanism not in {"PLAIN", "EXTERNAL"}:
        raise InvalidOption(
            "broker_login_method", f"{name!r} is not supported; PLAIN, AMQPLAIN and EXTERNAL are"
        )
    return mechanism
