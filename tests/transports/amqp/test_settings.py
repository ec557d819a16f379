from __future__ import annotations

from itertools import islice
from typing import Any

import pytest
from celery import Celery

from bridgetask.transports.amqp.settings import AmqpSettings


def settings(broker: Any = "amqp://", **conf: Any) -> AmqpSettings:
    celery = Celery("settings", broker=broker, backend="rpc://", set_as_current=False)
    celery.conf.update(conf)
    return AmqpSettings.from_app(celery)


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
