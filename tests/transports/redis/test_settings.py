from __future__ import annotations

from typing import Any

import pytest
from celery import Celery
from celery.backends.base import Backend

from bridgetask import InvalidOption
from bridgetask.transports.redis.settings import RedisSettings


def redis(backend: Any, **conf: Any) -> RedisSettings:
    celery = Celery("settings", broker="amqp://", backend=backend, set_as_current=False)
    celery.conf.update(conf)
    return RedisSettings.from_app(celery)


@pytest.mark.parametrize(
    ("backend", "address", "connection", "expected"),
    [
        ("redis", "redis://localhost:6379/0", "tcp", {"db": 0, "password": None}),
        ("redis://", "redis://localhost:6379/0", "tcp", {}),
        (
            "redis://u:p%40w@h:1/3",
            "redis://h:1/3",
            "tcp",
            {"host": "h", "port": 1, "db": 3, "username": "u", "password": "p@w"},
        ),
        (
            "rediss://h/2?ssl_cert_reqs=CERT_REQUIRED&ssl_ca_certs=%2Fca",
            "rediss://h:6379/2",
            "tls",
            {"ssl_cert_reqs": "required", "ssl_ca_certs": "/ca"},
        ),
        ("rediss://h?ssl_cert_reqs=none", "rediss://h:6379/0", "tls", {"ssl_cert_reqs": "none"}),
        (
            "redis+socket:///run/r.sock?virtual_host=4",
            "redis+socket:///run/r.sock?virtual_host=4",
            "unix",
            {"path": "/run/r.sock", "db": 4},
        ),
        ("celery.backends.redis:RedisBackend", "redis://localhost:6379/0", "tcp", {}),
    ],
)
def test_redis_is_read_as_celerys_own_backend_reads_it(
    backend: str, address: str, connection: str, expected: dict[str, Any]
) -> None:
    found = redis(backend).server
    assert (found.address, found.connection) == (address, connection)
    assert expected.items() <= found.parameters.items()


def test_redis_may_be_configured_by_single_settings() -> None:
    found = redis(
        "redis",
        redis_host="h",
        redis_port=7,
        redis_db=2,
        redis_username="u",
        redis_password="p",
        redis_socket_timeout=3,
        redis_socket_connect_timeout=2,
        redis_socket_keepalive=True,
        redis_backend_health_check_interval=9,
        redis_max_connections=1,
        redis_retry_on_timeout=True,
    ).server
    assert found.address == "redis://h:7/2"
    assert (found.answer_timeout, found.connect_timeout) == (3, 2)
    assert found.health_check_interval == 9
    expected = {"username": "u", "password": "p", "socket_keepalive": True}
    assert expected.items() <= found.parameters.items()
    assert not {"max_connections", "retry_on_timeout", "socket_timeout"} & found.parameters.keys()


def test_answers_are_waited_for_no_longer_than_is_bearable() -> None:
    assert redis("redis://").server.answer_timeout == 30
    assert redis("redis://?socket_timeout=4").server.answer_timeout == 4


def test_sentinels_and_their_options_are_read() -> None:
    found = redis(
        "sentinel://:pw@a:1/2;sentinel://b:2/2",
        result_backend_transport_options={
            "master_name": "m",
            "sentinel_kwargs": {"password": "0ther"},
            "min_other_sentinels": 1,
            "retry_policy": {"max_retries": 3, "interval_max": 2},
        },
    )
    server = found.server
    assert server.sentinels == (("a", 1), ("b", 2))
    assert (server.master_name, server.min_other_sentinels) == ("m", 1)
    assert server.sentinel_parameters == {"password": "0ther"}
    assert {"db": 2, "password": "pw"}.items() <= server.parameters.items()
    assert (found.retry.max_retries, found.retry.interval_max) == (3, 2)
    assert "pw" not in repr(found)
    assert "0ther" not in repr(found)


@pytest.mark.parametrize(
    ("backend", "conf", "option", "problem"),
    [
        ("sentinel://a:1", {}, "result_backend_transport_options", "master_name"),
        ("rediss://h", {}, "result_backend", "ssl_cert_reqs"),
        ("redis://h?ssl_ca_certs=x", {}, "result_backend", "rediss://"),
        ("redis://h:s3cret", {}, "result_backend", "can't be parsed"),
        ("redis://user:123/s3cret@h/0", {}, "result_backend", "can't be used"),
        ("redis://h", {"result_compression": "nope"}, "result_backend", "nope"),
    ],
)
def test_a_redis_that_can_not_be_used_is_refused_by_name(
    backend: str, conf: dict[str, Any], option: str, problem: str
) -> None:
    if "result_compression" in conf and not hasattr(Backend, "supports_result_compression"):
        pytest.skip("Celery 5.5 does not compress results")
    with pytest.raises(InvalidOption, match=problem) as refusal:
        redis(backend, **conf)
    assert refusal.value.option == option
    assert "s3cret" not in str(refusal.value)
