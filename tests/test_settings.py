from __future__ import annotations

from datetime import timedelta
from itertools import islice
from typing import Any

import pytest
from celery import Celery
from celery.backends.rpc import RPCBackend

from bridgetask import InvalidOption
from bridgetask.settings import RetryPolicy, Settings


def settings(broker: Any = "amqp://", backend: Any = "rpc://", **conf: Any) -> Settings:
    celery = Celery("settings", broker=broker, backend=backend, set_as_current=False)
    celery.conf.update(conf)
    return Settings.from_app(celery)


def test_an_app_that_names_no_broker_gets_celerys_default() -> None:
    (server,) = settings(None).write.servers
    assert (server.host, server.port, server.virtual_host) == ("127.0.0.1", 5672, "/")
    assert (server.user, server.password, server.tls) == ("guest", "guest", None)


@pytest.mark.parametrize(
    ("url", "virtual_host"),
    [
        ("amqp://h", "/"),
        ("amqp://h/", "/"),
        ("amqp://h//", "/"),
        ("amqp://h/name", "name"),
        ("amqp://h//name", "/name"),
        ("amqp://h/%2Fname", "/name"),
        ("amqp://h/a%20b", "a b"),
    ],
)
def test_virtual_hosts_are_read_as_kombu_reads_them(url: str, virtual_host: str) -> None:
    (server,) = settings(url).write.servers
    assert server.virtual_host == virtual_host


def test_credentials_and_ports_are_decoded() -> None:
    (server,) = settings("amqp://us%40er:p%2Fw@h:99//").write.servers
    assert (server.user, server.password, server.port) == ("us@er", "p/w", 99)


def test_amqps_means_tls_on_its_own_port() -> None:
    (server,) = settings("amqps://h//").write.servers
    assert (server.port, server.tls) == (5671, True)
    assert str(server) == "amqps://guest:**@h:5671/%2F"


def test_no_password_is_shown() -> None:
    read = settings(
        "amqp://user:s3cret@h//;amqp://user:s3cret@b//", broker_use_ssl={"keyfile": "k"}
    )
    assert "s3cret" not in repr(read)
    assert "s3cret" not in str(read.write.servers[0])


def test_connection_settings_are_read() -> None:
    (server,) = settings(
        "amqp://h//",
        broker_connection_timeout=7,
        broker_heartbeat=9,
        broker_login_method="external",
    ).write.servers
    assert (server.connect_timeout, server.heartbeat) == (7.0, 9)
    assert server.login_method == "EXTERNAL"


def test_a_list_of_brokers_is_cycled_through_by_the_strategy() -> None:
    broker = settings("amqp://a//;amqp://b//;amqp://c//").write
    assert [server.host for server in islice(broker.cycle(), 5)] == ["a", "b", "c", "a", "b"]
    shuffled = settings(["amqp://a//", "amqp://b//"], broker_failover_strategy="shuffle").write
    assert {server.host for server in islice(shuffled.cycle(), 200)} == {"a", "b"}
    single = settings("amqp://a//").write
    assert [server.host for server in islice(single.cycle(), 3)] == ["a"] * 3


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
    ],
)
def test_the_backend_is_known_however_it_is_spelt(backend: Any, name: str) -> None:
    assert settings(backend=backend).results.backend == name


def test_a_backend_class_that_is_no_rpc_is_named() -> None:
    from celery.backends.cache import CacheBackend

    results = settings(backend=CacheBackend).results
    assert results.backend == "CacheBackend"
    assert not results.supported


@pytest.mark.parametrize(
    ("expires", "seconds"), [(None, 86400.0), (60, 60.0), (timedelta(hours=1), 3600.0)]
)
def test_results_expire_as_configured(expires: Any, seconds: float) -> None:
    assert settings(result_expires=expires).results.expires == seconds


def test_a_retry_policy_counts_and_waits_as_celerys_does() -> None:
    policy = RetryPolicy.from_mapping(
        {"max_retries": 2, "interval_start": 1, "interval_step": 2, "interval_max": 4}
    )
    assert [policy.interval(retries) for retries in range(4)] == [1, 3, 4, 4]
    assert [policy.allows(retries) for retries in range(4)] == [True, True, False, False]
    forever = RetryPolicy.from_mapping({"max_retries": None})
    assert forever.allows(1_000_000)
    assert RetryPolicy.from_mapping({}) == RetryPolicy()


def test_a_bad_retry_policy_is_refused() -> None:
    with pytest.raises(InvalidOption, match="retry_policy: interval_max must be a number"):
        RetryPolicy.from_mapping({"interval_max": "soon"})


def test_a_bad_broker_is_refused_by_the_setting_it_came_from() -> None:
    with pytest.raises(InvalidOption, match=r"broker_url: sqs:// is not supported"):
        settings("amqp://a//;sqs://b//")
    with pytest.raises(InvalidOption, match=r"broker_url: memory:// is not supported"):
        settings("amqp://a//", broker_transport="memory")
