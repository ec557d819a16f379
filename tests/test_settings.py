from __future__ import annotations

import inspect
import subprocess
import sys
from datetime import timedelta
from itertools import islice
from typing import Any

import pytest
from celery import Celery
from celery.backends.base import Backend
from celery.backends.rpc import RPCBackend
from kombu import Connection

from bridgetask import InvalidOption
from bridgetask.settings import RetryPolicy, Settings
from bridgetask.transports.redis.settings import RedisSettings


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
    short = RetryPolicy.from_mapping({"timeout": 5})
    assert [short.allows(1_000, seconds) for seconds in (4.9, 5.1)] == [True, False]


def test_what_a_retry_policy_does_not_say_is_as_kombu_has_it() -> None:
    ensure = inspect.signature(Connection.ensure).parameters
    policy = RetryPolicy.from_mapping({})
    for name in ("max_retries", "interval_start", "interval_step", "interval_max"):
        assert getattr(policy, name) == ensure[name].default


def test_a_bad_retry_policy_is_refused() -> None:
    with pytest.raises(InvalidOption, match="retry_policy: interval_max must be a number"):
        RetryPolicy.from_mapping({"interval_max": "soon"})


def test_a_bad_broker_is_refused_by_the_setting_it_came_from() -> None:
    with pytest.raises(InvalidOption, match=r"broker_url: sqs:// is not supported"):
        settings("amqp://a//;sqs://b//")
    with pytest.raises(InvalidOption, match=r"broker_url: memory:// is not supported"):
        settings("amqp://a//", broker_transport="memory")


def redis(backend: Any, **conf: Any) -> RedisSettings:
    found = settings(backend=backend, **conf).results.redis
    assert found is not None
    return found


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
    found = redis(backend)
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
    )
    assert found.address == "redis://h:7/2"
    assert (found.answer_timeout, found.connect_timeout) == (3, 2)
    assert found.health_check_interval == 9
    expected = {"username": "u", "password": "p", "socket_keepalive": True}
    assert expected.items() <= found.parameters.items()
    assert not {"max_connections", "retry_on_timeout", "socket_timeout"} & found.parameters.keys()


def test_answers_are_waited_for_no_longer_than_is_bearable() -> None:
    assert redis("redis://").answer_timeout == 30
    assert redis("redis://?socket_timeout=4").answer_timeout == 4


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
    assert found.sentinels == (("a", 1), ("b", 2))
    assert (found.master_name, found.min_other_sentinels) == ("m", 1)
    assert found.sentinel_parameters == {"password": "0ther"}
    assert {"db": 2, "password": "pw"}.items() <= found.parameters.items()
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
        settings(backend=backend, **conf)
    assert refusal.value.option == option
    assert "s3cret" not in str(refusal.value)


def test_without_the_redis_package_it_is_said_what_to_install() -> None:
    code = (
        "import sys; sys.modules['redis'] = None\n"
        "from celery import Celery\n"
        "from bridgetask import Client\n"
        "app = Celery(broker='amqp://', backend='redis://')\n"
        "Client(app)._wire"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert "InvalidOption: result_backend: needs the package redis" in ended.stderr
    assert "install bridgetask[redis]" in ended.stderr


def test_nothing_of_redis_is_imported_unless_an_app_asks_for_it() -> None:
    code = (
        "import sys; from celery import Celery; from bridgetask import Client\n"
        "Client(Celery(broker='amqp://', backend='rpc://'))._wire\n"
        "assert not [name for name in sys.modules if name.split('.')[0] == 'redis']"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
