"""Which Redis a Celery app stores results in, as Celery's own backend reads the configuration.

Neither Celery's Redis backend nor redis-py is imported before an app asks for them.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from celery.app.backends import BACKEND_ALIASES
from celery.exceptions import ImproperlyConfigured
from kombu.utils.imports import symbol_by_name
from kombu.utils.url import url_to_parts

from ...errors import InvalidOption
from ...retry import RetryPolicy
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

__all__ = ["RedisSettings", "redis_backend"]

_MISSING = "needs the package redis: install bridgetask[redis]"

#: Seconds for Redis to answer where the app allows more: Celery's default of 120 is for code that
#: has a thread to wait in.
_LONGEST_ANSWER = 30.0


@dataclass(frozen=True, slots=True)
class RedisSettings:
    """The Redis that results are stored in, as Celery's own backend reads the configuration."""

    server: RedisServer
    #: When to connect again while results are waited for.
    retry: RetryPolicy

    @classmethod
    def from_app(cls, app: Celery) -> RedisSettings:
        """Read what Celery's own backend makes of the configuration. It connects to nothing.

        :raises InvalidOption: the configuration can't be used, or the package ``redis`` is missing.
        """
        backend = _configured_backend(app)
        given: Mapping[str, Any] = backend.connparams
        options: Mapping[str, Any] = backend._transport_options or {}
        connection = kind_of(given.get("connection_class"))
        sentinels = tuple((each["host"], int(each["port"])) for each in given.get("hosts", ()))
        if sentinels and not options.get("master_name"):
            raise InvalidOption(
                "result_backend_transport_options", "sentinel:// needs a master_name"
            )
        answer_timeout = float(given.get("socket_timeout") or _LONGEST_ANSWER)
        health_check_interval = given.get("health_check_interval") or HEALTH_CHECK_INTERVAL
        server = RedisServer(
            option="result_backend",
            address=address_of(given, connection, sentinels),
            connection=connection,
            parameters=parameters_of(given, connection),
            credential_provider=given.get("credential_provider"),
            sentinels=sentinels,
            master_name=options.get("master_name"),
            sentinel_parameters=options.get("sentinel_kwargs") or {},
            min_other_sentinels=options.get("min_other_sentinels", 0),
            connect_timeout=float(given.get("socket_connect_timeout") or CONNECT_TIMEOUT),
            answer_timeout=min(answer_timeout, _LONGEST_ANSWER),
            health_check_interval=float(health_check_interval),
        )
        return cls(server, RetryPolicy.from_mapping(backend.retry_policy))


def redis_backend(app: Celery) -> tuple[type[Any], str | None]:
    """Return Celery's class of the app's Redis backend, and the URL that it is made with.

    Follows ``celery.app.backends.by_url``. Making one does not read any files.

    :raises InvalidOption: the package ``redis`` is missing.
    """
    backend = app.backend_cls or app.conf.result_backend
    if not isinstance(backend, str):
        return _reads_no_files(backend), None
    scheme, separator, _ = backend.partition("://")
    url = backend if separator else None
    if "+" in scheme:
        scheme, url = backend.split("+", 1)
    path = {**BACKEND_ALIASES, **app.loader.override_backends}.get(scheme, scheme)
    try:
        return _reads_no_files(symbol_by_name(path)), url
    except ImportError as error:
        raise InvalidOption("result_backend", _MISSING) from error


def _reads_no_files(backend_class: Any) -> Any:
    """Keep a backend from looking up redis-py's version, of which it would tell the server."""
    return type(backend_class.__name__, (backend_class,), {"_add_driver_info": lambda _: None})


def _configured_backend(app: Celery) -> Any:
    backend_class, url = redis_backend(app)
    try:
        for each in (url or "").split(";"):
            url_to_parts(each)
    except ValueError:  # what it says may quote the password
        raise InvalidOption("result_backend", "can't be parsed") from None
    try:
        return backend_class(app=app, url=url)
    except ImproperlyConfigured as error:
        missing = backend_class.redis is None
        raise InvalidOption("result_backend", _MISSING if missing else str(error)) from error
    except (ValueError, TypeError) as error:
        # What int() says of a wrong database may quote a password; Celery's own texts do not.
        texts = vars(sys.modules["celery.backends.redis"]).values()
        said = next((text for text in texts if text == str(error)), "can't be used")
        raise InvalidOption("result_backend", said.strip()) from None
