from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from celery import Celery
from celery.backends.cache import CacheBackend
from celery.backends.rpc import RPCBackend

from bridgetask.settings import backend_name, broker_schemes, result_expires


def app(backend: Any = "rpc://", **conf: Any) -> Celery:
    celery = Celery("settings", broker="amqp://", backend=backend, set_as_current=False)
    celery.conf.update(conf)
    return celery


@pytest.mark.parametrize(
    ("urls", "schemes"),
    [
        (None, ["amqp"]),
        ("h:5672", ["amqp"]),
        ("amqps://h//", ["amqps"]),
        ("amqp://a//;sqs://b", ["amqp", "sqs"]),
        (["amqp://a//", "pyamqp://b//"], ["amqp", "pyamqp"]),
    ],
)
def test_the_schemes_of_brokers_are_read_from_their_urls(urls: Any, schemes: list[str]) -> None:
    assert broker_schemes(app().conf, urls) == schemes


def test_the_transport_may_be_a_setting_of_its_own() -> None:
    assert broker_schemes(app(broker_transport="memory").conf, "h") == ["memory"]


@pytest.mark.parametrize(
    ("backend", "name"),
    [
        ("rpc://", "rpc"),
        ("rpc", "rpc"),
        (RPCBackend, "rpc"),
        ("celery.backends.rpc:RPCBackend", "rpc"),
        (None, "disabled"),
        ("disabled", "disabled"),
        ("redis://localhost", "redis"),
        ("db+sqlite:///x", "db+sqlite"),
        ("nonsense://", "nonsense"),
        (CacheBackend, "CacheBackend"),
    ],
)
def test_the_backend_is_known_however_it_is_spelt(backend: Any, name: str) -> None:
    assert backend_name(app(backend)) == name


@pytest.mark.parametrize(
    ("expires", "seconds"), [(None, 86400.0), (60, 60.0), (timedelta(hours=1), 3600.0)]
)
def test_results_expire_as_configured(expires: Any, seconds: float) -> None:
    assert result_expires(app(result_expires=expires)) == seconds
