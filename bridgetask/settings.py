"""What a Celery app's configuration says to every carrier: which broker, which backend, how long.

Reading it does no I/O, and alters nothing of the app.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from celery.app.backends import BACKEND_ALIASES
from kombu.utils.imports import symbol_by_name

if TYPE_CHECKING:
    from celery import Celery

__all__ = ["backend_name", "broker_schemes", "result_expires"]

#: Celery's classes of backends -> what they are here.
_BACKENDS = {
    "RPCBackend": "rpc",
    "DisabledBackend": "disabled",
    "RedisBackend": "redis",
    "SentinelBackend": "redis",
}

#: What Celery keeps results for where ``result_expires`` says nothing: a day, in seconds.
_DEFAULT_RESULT_EXPIRES = 86_400.0


def broker_schemes(conf: Mapping[str, Any], urls: str | Sequence[str] | None) -> list[str]:
    """Return the schemes of a broker's URLs, one or a failover list. The default is AMQP.

    :param conf: the app's configuration.
    :param urls: its ``broker_write_url`` or ``broker_read_url``.
    """
    listed = urls.split(";") if isinstance(urls, str) else list(urls or ())
    schemes = [url.partition("://")[0] for url in listed if "://" in url]
    transport = conf.get("broker_transport")
    if transport is not None:
        schemes.append(transport)
    return schemes or ["amqp"]


def result_expires(app: Celery) -> float:
    """Return for how many seconds results are kept."""
    expires = app.conf.result_expires
    if isinstance(expires, timedelta):
        expires = expires.total_seconds()
    return float(expires or _DEFAULT_RESULT_EXPIRES)


def backend_name(app: Celery) -> str:
    """Name the result backend: users write ``rpc``, ``rpc://``, by import path or as a class.

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
