"""What a Celery app's configuration says, as frozen dataclasses.

Reading it does no I/O: URLs are parsed by kombu's own ``Connection``, which connects only when
it is asked to. Nothing here alters the app.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from math import ceil
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from celery.app.backends import BACKEND_ALIASES
from kombu.connection import failover_strategies
from kombu.utils.imports import symbol_by_name

from .errors import InvalidOption
from .retry import RetryPolicy
from .transports.redis.settings import RedisSettings

if TYPE_CHECKING:
    from celery import Celery
    from kombu import Connection

__all__ = [
    "IN_MEMORY",
    "BrokerSettings",
    "ResultSettings",
    "RetryPolicy",
    "Server",
    "Settings",
    "sends_by_amqp",
]

_AMQP_TRANSPORTS = {"amqp", "pyamqp", "amqps", "librabbitmq"}
_SUPPORTED_BROKERS = "amqp://, amqps:// and pyamqp://"
_SUPPORTED_BACKENDS = "rpc://, redis://, rediss://, redis+socket:// and sentinel://"
#: Celery's classes of backends -> what they are here.
_BACKENDS = {
    "RPCBackend": "rpc",
    "DisabledBackend": "disabled",
    "RedisBackend": "redis",
    "SentinelBackend": "redis",
}

#: What stands for all other backends where nothing is connected to. No URL can have such a scheme.
IN_MEMORY = "in memory"

#: What Celery keeps results for where ``result_expires`` says nothing: a day, in seconds.
_DEFAULT_RESULT_EXPIRES = 86_400.0

#: What ``broker_heartbeat``, two minutes by default, is cut to, in seconds. This side notices a
#: dead connection within one heartbeat, and a send has 30 s in all. RabbitMQ takes up to three, and
#: until then it keeps back the results that it had put on that connection.
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
    #: Seconds without a word from the other side after which it is taken for dead; 0 for never.
    heartbeat: int
    #: True or py-amqp's options where the connection is encrypted, else None.
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
class ResultSettings:
    """Where results come from."""

    #: ``"rpc"``, ``"redis"``, ``"disabled"``, ``IN_MEMORY``, or the scheme of a backend that is not
    #: supported.
    backend: str
    #: Seconds that a reply queue without a consumer, and what is in it, lives on.
    expires: float
    #: Where the backend is Redis: which one.
    redis: RedisSettings | None = None

    @property
    def supported(self) -> bool:
        """Whether the configured backend is one that bridgetask knows; having none is fine."""
        return self.backend == IN_MEMORY or self.backend in _BACKENDS.values()

    @property
    def stored(self) -> bool:
        """Whether results are stored, so that any client can read those of any task."""
        return self.backend in {IN_MEMORY, "redis"}

    @property
    def unavailable(self) -> str | None:
        """Say why results can't be waited for, or None where they can."""
        if self.backend == "disabled":
            return "no result backend is configured (set result_backend to rpc:// or redis://)"
        if self.supported:
            return None
        return (
            f"the backend {self.backend}:// is not supported; supported are {_SUPPORTED_BACKENDS}"
        )


@dataclass(frozen=True, slots=True)
class Settings:
    """All that bridgetask needs to know of an app's configuration."""

    write: BrokerSettings
    read: BrokerSettings
    results: ResultSettings
    #: How many messages may be on their way to the broker without its confirm.
    max_in_flight: int

    @classmethod
    def from_app(
        cls, app: Celery, *, heartbeat: float | None = None, max_in_flight: int = 512
    ) -> Settings:
        """Read an app's configuration.

        :param heartbeat: seconds after which a silent broker is taken for dead, 0 for never; None
            takes ``broker_heartbeat``, but at most 10.
        :raises InvalidOption: the configuration names a broker that is not supported.
        """
        return cls(
            write=_broker(app, "broker_write_url", app.connection_for_write, heartbeat),
            read=_broker(app, "broker_read_url", app.connection_for_read, heartbeat),
            results=_results(app),
            max_in_flight=max_in_flight,
        )

    @classmethod
    def in_memory(
        cls, app: Celery, *, heartbeat: float | None = None, max_in_flight: int = 512
    ) -> Settings:
        """Say what a client needs that connects to nothing, whatever the app is configured for.

        Results are stored, but for ``rpc://``, which can do less than all other backends can.
        """
        nowhere = BrokerSettings(servers=(), failover_strategy="round-robin", _urls=())
        backend = "rpc" if _backend_name(app) == "rpc" else IN_MEMORY
        results = ResultSettings(backend=backend, expires=_DEFAULT_RESULT_EXPIRES)
        return cls(write=nowhere, read=nowhere, results=results, max_in_flight=max_in_flight)


def _broker(
    app: Celery, setting: str, connect: Callable[..., Connection], heartbeat: float | None
) -> BrokerSettings:
    _check_schemes(app, getattr(app.conf, setting))
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


def _check_schemes(app: Celery, urls: str | Sequence[str] | None) -> None:
    """Refuse other brokers by their URLs: kombu would first import their libraries."""
    for scheme in _other_schemes(app, urls):
        raise InvalidOption(
            "broker_url", f"{scheme}:// is not supported; supported are {_SUPPORTED_BROKERS}"
        )


def _other_schemes(app: Celery, urls: str | Sequence[str] | None) -> list[str]:
    """Return which of the configured schemes are not AMQP's."""
    listed = urls.split(";") if isinstance(urls, str) else list(urls or ())
    schemes = [url.partition("://")[0] for url in listed if "://" in url]
    return [
        scheme
        for scheme in [*schemes, app.conf.broker_transport]
        if scheme is not None and scheme not in _AMQP_TRANSPORTS
    ]


def sends_by_amqp(app: Celery) -> bool:
    """Tell whether the app is configured to send to a broker that bridgetask supports."""
    return not _other_schemes(app, app.conf.broker_write_url)


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
    """Return the SASL mechanism to use. AMQPLAIN is PLAIN in older clothes, and sent as that."""
    mechanism = (name or "PLAIN").upper()
    if mechanism == "AMQPLAIN":
        return "PLAIN"
    if mechanism not in {"PLAIN", "EXTERNAL"}:
        raise InvalidOption(
            "broker_login_method", f"{name!r} is not supported; PLAIN, AMQPLAIN and EXTERNAL are"
        )
    return mechanism


def _results(app: Celery) -> ResultSettings:
    expires = app.conf.result_expires
    if isinstance(expires, timedelta):
        expires = expires.total_seconds()
    backend = _backend_name(app)
    return ResultSettings(
        backend=backend,
        expires=float(expires or _DEFAULT_RESULT_EXPIRES),
        redis=RedisSettings.from_app(app) if backend == "redis" else None,
    )


def _backend_name(app: Celery) -> str:
    """Name the result backend: users spell it ``rpc``, ``rpc://``, by import path or as a class.

    Follows ``celery.app.backends.by_url``, which also looks through every installed package for
    further names of backends. That reads files; none of those backends is supported anyway.
    """
    backend = app.backend_cls or app.conf.result_backend
    if backend is None:
        return "disabled"
    if not isinstance(backend, str):
        return _class_name(backend)
    scheme = backend.partition("://")[0]
    alias = scheme.partition("+")[0]
    path = BACKEND_ALIASES.get(alias)
    override = app.loader.override_backends.get(alias)
    if override is not None:
        return _class_name(symbol_by_name(override))
    if path is None and ("." in scheme or ":" in scheme):
        return _class_name(symbol_by_name(scheme))
    if path is not None:
        return _BACKENDS.get(path.replace(":", ".").rpartition(".")[2], scheme)
    return scheme


def _class_name(backend: type) -> str:
    names = (_BACKENDS.get(each.__name__) for each in backend.__mro__)
    return next(filter(None, names), backend.__name__)
