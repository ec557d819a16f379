"""Which plugs stand for the broker and the backend that an app's configuration names.

A carrier is imported when an app names it, and not before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from time import monotonic
from typing import TYPE_CHECKING, Any

from ..core.plugs import BackendPlug, BrokerConnections, BrokerPlug, SessionContext
from ..core.receiving import ResultSource, ResultStore
from ..errors import InvalidOption
from ..settings import backend_name, broker_schemes
from ..wire.codec import Codec
from ..wire.compression import DEFAULT_LIMIT
from ..wire.control import ControlMailbox
from ..wire.recorder import Recorder
from ..wire.results import ResultDecoder
from .disabled import DisabledBackend
from .rpc import RpcBackend

if TYPE_CHECKING:
    from celery import Celery

__all__ = ["Plugs", "preload"]

#: The settings that name brokers.
_URLS = ("broker_write_url", "broker_read_url")
#: URL schemes of brokers -> where their plugs are.
_BROKERS = {
    **dict.fromkeys(("amqp", "pyamqp", "amqps", "librabbitmq"), "amqp.plug:AmqpBroker"),
    **dict.fromkeys(("redis", "rediss", "redis+socket"), "redis.broker:RedisBroker"),
    "sentinel": "redis.broker:RedisBroker",
}
_SUPPORTED_BROKERS = (
    "amqp://, amqps://, pyamqp://, redis://, rediss://, redis+socket:// and sentinel://"
)
_BACKEND_ON_REDIS = "redis.plug:RedisBackend"
_SUPPORTED_BACKENDS = "rpc://, redis://, rediss://, redis+socket:// and sentinel://"


@dataclass(frozen=True, slots=True)
class Plugs:
    """The broker and the backend of an app."""

    app: Celery
    broker: BrokerPlug
    backend: BackendPlug

    @classmethod
    def of(cls, app: Celery, *, heartbeat: float | None = None) -> Plugs:
        """Read an app's configuration. This does no I/O.

        :param heartbeat: seconds after which a silent broker is taken for dead, 0 for never; None
            takes what the app says.
        :raises InvalidOption: naming the setting that can't be used.
        """
        return cls(app, _broker(app, heartbeat), _backend(app))

    def codec(self, reply_to: str, *, max_result_size: int = DEFAULT_LIMIT) -> Codec:
        """Return what builds and reads messages.

        :param reply_to: the address that workers shall send results to.
        :param max_result_size: bytes that a result may have, once it is decompressed.
        """
        recorder = self.recorder(reply_to)
        stored = recorder.backend if self.backend.capabilities.stores else None
        decoder = ResultDecoder(self.app, stored, max_size=max_result_size)
        return Codec(self.app, recorder, decoder, ControlMailbox(self.app, recorder))

    def recorder(self, reply_to: str, *, clock: Callable[[], float] = monotonic) -> Recorder:
        """Return what builds messages; see :meth:`codec`.

        :param clock: tells the time, in seconds.
        """
        return Recorder(
            self.app,
            reply_to,
            connection=self.broker.unconnected(),
            channel=self.broker.recording_channel(),
            make_backend=self.backend.recording_backend,
            address_callbacks=self.backend.capabilities.uses_reply_to,
            clock=clock,
        )

    def connect(
        self, context: SessionContext
    ) -> tuple[BrokerConnections, ResultSource, ResultStore | None]:
        """Return what connects a session. Nothing connects before it is used."""
        broker = self.broker.connect(context)
        results, store = self.backend.connect(context, broker)
        return broker, results, store


def preload(app: Celery) -> None:
    """Import the carriers that an app is known to use.

    The first call is made on the event loop, which must not wait for files. An app that has not
    read its configuration yet is not made to.
    """
    conf: Mapping[str, Any] = app.conf if app.configured else app._preconf
    backend = app.backend_cls or conf.get("result_backend")
    with suppress(InvalidOption):  # the first call says so
        if isinstance(backend, str) and backend.startswith(("redis", "sentinel")):
            _load(_BACKEND_ON_REDIS, "result_backend")
        for urls in (conf.get(setting) for setting in ("broker_url", *_URLS)):
            for scheme in broker_schemes(conf, urls):
                if scheme in _BROKERS:
                    _load(_BROKERS[scheme], "broker_url")


def _load(plug: str, option: str) -> Any:
    """Import a plug.

    :raises InvalidOption: a package that it needs is missing.
    """
    module, name = plug.split(":")
    try:
        return getattr(import_module(f".{module}", __package__), name)
    except ImportError as error:
        extra = module.partition(".")[0]
        raise InvalidOption(
            option, f"needs the package {error.name}: install bridgetask[{extra}]"
        ) from error


def _broker(app: Celery, heartbeat: float | None) -> BrokerPlug:
    schemes = [
        scheme
        for setting in _URLS
        for scheme in broker_schemes(app.conf, getattr(app.conf, setting))
    ]
    # Sentinels name a server, and are none themselves.
    kinds = {(_plug_of(scheme), scheme == "sentinel") for scheme in schemes}
    if len(kinds) > 1:
        raise InvalidOption(
            "broker_url", f"names brokers of several kinds: {', '.join(dict.fromkeys(schemes))}"
        )
    [(name, _)] = kinds
    plug: BrokerPlug = _load(name, "broker_url")(app, heartbeat=heartbeat)
    return plug


def _plug_of(scheme: str) -> str:
    """Return where a broker's plug is. kombu would first import its library.

    :raises InvalidOption: there is none.
    """
    plug = _BROKERS.get(scheme)
    if plug is None:
        raise InvalidOption(
            "broker_url", f"{scheme}:// is not supported; supported are {_SUPPORTED_BROKERS}"
        )
    return plug


def _backend(app: Celery) -> BackendPlug:
    name = backend_name(app)
    if name == "redis":
        plug: BackendPlug = _load(_BACKEND_ON_REDIS, "result_backend")(app)
        return plug
    if name == "rpc":
        return RpcBackend()
    if name == "disabled":
        return DisabledBackend(
            "no result backend is configured (set result_backend to rpc:// or redis://)"
        )
    return DisabledBackend(
        f"the backend {name}:// is not supported; supported are {_SUPPORTED_BACKENDS}",
        refuses_calls=True,
    )
