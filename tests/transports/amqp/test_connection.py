"""Connecting: URLs, virtual hosts, logins, TLS, failover, and what is said when it fails."""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock
from urllib.parse import quote

import pytest
from amqp.transport import SSLTransport

from bridgetask import BrokerUnreachable, Client, ClientClosed, InvalidOption, Refused
from bridgetask.transports.amqp.settings import AmqpSettings
from bridgetask.transports.amqp.socket import tls_context
from bridgetask.wire.message import Declaration

from ...fakes import proxy
from ...fix_rabbitmq import make_app, take
from ...servers import RabbitMQ, free_ports


async def sends(broker: str, **conf: Any) -> None:
    """Send a task that nobody runs, to see that the connection serves."""
    celery = make_app("connects", broker, task_default_queue="connects", **conf)
    async with Client(celery, send_timeout=10) as client:
        await client.send_task("nothing").sent()


@pytest.mark.parametrize("virtual_host", ["/", "plain", "a/b", "per%cent", "umläut"])
async def test_every_virtual_host_is_found(rabbitmq: RabbitMQ, virtual_host: str) -> None:
    url = rabbitmq.url(virtual_host)
    await sends(url)
    assert len(await asyncio.to_thread(take, url, "connects")) == 1


@pytest.mark.parametrize("scheme", ["amqp", "pyamqp"])
async def test_amqp_urls_of_every_spelling_connect(rabbitmq: RabbitMQ, scheme: str) -> None:
    await sends(rabbitmq.url().replace("amqp", scheme, 1))
    await sends(f"{scheme}://localhost:{rabbitmq.port}//")
    await sends(f"{scheme}://localhost:{rabbitmq.port}")
    assert len(await asyncio.to_thread(take, rabbitmq.url(), "connects")) == 3


async def test_a_user_and_a_password_with_odd_characters_log_in(rabbitmq: RabbitMQ) -> None:
    password = quote("s3cr3t p@ss/word", safe="")
    await sends(f"amqp://alice:{password}@127.0.0.1:{rabbitmq.port}//")
    await sends(
        f"amqp://127.0.0.1:{rabbitmq.port}//",
        broker_user="alice",
        broker_password="s3cr3t p@ss/word",
    )
    await asyncio.to_thread(take, rabbitmq.url(), "connects")


async def test_the_login_method_is_honoured(rabbitmq: RabbitMQ) -> None:
    await sends(rabbitmq.url(), broker_login_method="PLAIN")
    await sends(rabbitmq.url(), broker_login_method="AMQPLAIN")
    with pytest.raises(InvalidOption, match="broker_login_method: 'GSSAPI' is not supported"):
        await sends(rabbitmq.url(), broker_login_method="GSSAPI")
    await asyncio.to_thread(take, rabbitmq.url(), "connects")


async def test_separate_urls_for_reading_and_writing_are_honoured(rabbitmq: RabbitMQ) -> None:
    async with proxy(rabbitmq.port) as reading, proxy(rabbitmq.port) as writing:
        celery = make_app(
            "both",
            "amqp://127.0.0.1:1//",
            broker_read_url=f"amqp://127.0.0.1:{reading.port}//",
            broker_write_url=f"amqp://127.0.0.1:{writing.port}//",
        )
        async with Client(celery) as client:
            await client.connect()
        assert (reading.accepted, writing.accepted) == (1, 1)


async def test_the_heartbeat_is_the_clients_or_the_apps_up_to_10_seconds(
    rabbitmq: RabbitMQ,
) -> None:
    async def heartbeats(of_the_app: int, **options: Any) -> set[str]:
        celery = make_app("beats", rabbitmq.url(), broker_heartbeat=of_the_app)
        async with Client(celery, **options):
            rows = await asyncio.to_thread(
                rabbitmq.names, "connections", "timeout", "client_properties"
            )
        return {row[0] for row in rows if "bridgetask" in row[1]}

    assert await heartbeats(9) == {"9"}
    assert await heartbeats(120) == {"10"}
    assert await heartbeats(9, heartbeat=33) == {"33"}
    assert await heartbeats(0) == {"0"}


async def test_client_properties_of_the_app_are_sent(rabbitmq: RabbitMQ) -> None:
    celery = make_app(
        "properties",
        rabbitmq.url(),
        broker_transport_options={"client_properties": {"team": "blue"}},
    )
    async with Client(celery):
        rows = await asyncio.to_thread(rabbitmq.names, "connections", "client_properties")
    assert sum('{"team","blue"}' in row[0] for row in rows) == 2


@pytest.fixture
def tls(rabbitmq: RabbitMQ, certificates: dict[str, Path]) -> dict[str, Any]:
    return {
        "ca_certs": str(certificates["ca"]),
        "certfile": str(certificates["client_cert"]),
        "keyfile": str(certificates["client_key"]),
    }


async def test_tls_connects_with_a_private_ca_and_a_client_certificate(
    rabbitmq: RabbitMQ, tls: dict[str, Any]
) -> None:
    at = f"127.0.0.1:{rabbitmq.tls_port}//"
    await sends(f"amqps://{at}", broker_use_ssl=tls)
    await sends(f"amqp://{at}", broker_use_ssl={**tls, "cert_reqs": ssl.CERT_REQUIRED})
    await sends(f"amqp://{at}", broker_use_ssl={**tls, "server_hostname": "localhost"})
    await sends(f"amqp://{at}", broker_use_ssl={**tls, "server_hostname": None})
    await sends(f"amqp://{at}", broker_use_ssl={**tls, "cert_reqs": ssl.CERT_NONE})
    await sends(
        f"amqp://{at}",
        broker_use_ssl={
            **tls,
            "ciphers": "ECDHE+AESGCM",
            "tls_minimum_version": ssl.TLSVersion.TLSv1_2,
            "tls_maximum_version": ssl.TLSVersion.TLSv1_2,
        },
    )
    await asyncio.to_thread(take, rabbitmq.url(), "connects")


async def test_an_external_login_uses_the_client_certificate(
    rabbitmq: RabbitMQ, tls: dict[str, Any]
) -> None:
    await sends(
        f"amqp://127.0.0.1:{rabbitmq.tls_port}//",
        broker_use_ssl=tls,
        broker_login_method="EXTERNAL",
    )
    await asyncio.to_thread(take, rabbitmq.url(), "connects")


@pytest.mark.parametrize(
    "wrong",
    [
        {"server_hostname": "other.example"},
        {"ca_certs": "other_ca"},
        {"ca_certs": None},
        {"certfile": None, "keyfile": None},
        {"context": {"cafile": "other_ca"}},
    ],
    ids=[
        "another host's name",
        "another CA",
        "the system's CAs",
        "no client certificate",
        "context",
    ],
)
async def test_tls_refuses_what_does_not_fit(
    rabbitmq: RabbitMQ, tls: dict[str, Any], certificates: dict[str, Path], wrong: dict[str, Any]
) -> None:
    options = {**tls, **wrong}
    if options.get("ca_certs") == "other_ca":
        options["ca_certs"] = str(certificates["other_ca"])
    if "context" in options:
        options = {"context": {"cafile": str(certificates["other_ca"])}}
    with pytest.raises(BrokerUnreachable):
        await sends(f"amqp://127.0.0.1:{rabbitmq.tls_port}//", broker_use_ssl=options)


@pytest.mark.parametrize(
    ("scheme", "options"),
    [("amqps", {}), ("amqp", {"broker_use_ssl": True}), ("amqp", {"broker_use_ssl": {}})],
    ids=["amqps", "broker_use_ssl=True", "no options"],
)
async def test_a_broker_is_verified_where_nothing_is_said(
    rabbitmq: RabbitMQ, scheme: str, options: dict[str, Any]
) -> None:
    """By the system's CAs, which do not know the test's. Without TLS, {} is nothing in Celery."""
    expected = "TLS failed|reset|closed" if options.get("broker_use_ssl") != {} else "."
    with pytest.raises(BrokerUnreachable, match=expected):
        await sends(
            f"{scheme}://127.0.0.1:{rabbitmq.tls_port}//", broker_connection_timeout=1, **options
        )


@pytest.mark.parametrize("missing", ["ca_certs", "certfile", "keyfile"])
async def test_a_certificate_that_is_missing_is_an_error_and_nothing_is_sent_unverified(
    rabbitmq: RabbitMQ, tls: dict[str, Any], missing: str
) -> None:
    with pytest.raises(BrokerUnreachable, match="No such file"):
        await sends(
            f"amqp://127.0.0.1:{rabbitmq.tls_port}//",
            broker_use_ssl={**tls, missing: "/nowhere/at/all.pem"},
        )


@pytest.mark.parametrize(
    "options",
    [
        True,
        {},
        {"cert_reqs": ssl.CERT_REQUIRED},
        {"cert_reqs": ssl.CERT_OPTIONAL},
        {"cert_reqs": ssl.CERT_NONE},
        {"server_hostname": "h"},
        {"server_hostname": "h", "ca_certs": "ca"},
        {"ca_certs": "ca", "cert_reqs": ssl.CERT_NONE},
        {"context": {"check_hostname": True}},
        {"context": {}},
    ],
    ids=str,
)
def test_tls_verifies_what_py_amqp_verifies(
    options: Any, certificates: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    if isinstance(options, dict) and "ca_certs" in options:
        options = {**options, "ca_certs": str(certificates["ca"])}
    celery = make_app("verifies", "amqp://h//", broker_use_ssl=options or {"ca_certs": None})
    ours, _ = tls_context(AmqpSettings.from_app(celery).write.servers[0])
    used: list[ssl.SSLContext] = []
    monkeypatch.setattr(
        ssl.SSLContext, "wrap_socket", lambda self, *_, **__: used.append(self) or MagicMock()
    )
    given = options if isinstance(options, dict) else {}
    SSLTransport("h", **given)._wrap_socket(MagicMock(), **given)
    (theirs,) = used
    assert (ours.verify_mode, ours.check_hostname) == (theirs.verify_mode, theirs.check_hostname)
    assert (ours.protocol, ours.minimum_version) == (theirs.protocol, theirs.minimum_version)


async def test_plain_amqp_to_a_tls_port_fails_in_time(rabbitmq: RabbitMQ) -> None:
    began = time.monotonic()
    with pytest.raises(BrokerUnreachable):
        await sends(f"amqp://127.0.0.1:{rabbitmq.tls_port}//", broker_connection_timeout=1)
    assert time.monotonic() - began < 20


async def test_the_next_broker_is_tried_when_one_is_down(rabbitmq: RabbitMQ) -> None:
    (dead,) = free_ports(1)
    await sends(f"amqp://127.0.0.1:{dead}//;{rabbitmq.url()}")
    celery = make_app(
        "list", [f"amqp://127.0.0.1:{dead}//", rabbitmq.url()], broker_failover_strategy="shuffle"
    )
    async with Client(celery) as client:
        await client.connect()
    await asyncio.to_thread(take, rabbitmq.url(), "connects")


async def test_a_failover_strategy_of_ones_own_decides_the_order(rabbitmq: RabbitMQ) -> None:
    asked: list[list[str]] = []
    dead, dead_too = free_ports(2)
    urls = [f"amqp://127.0.0.1:{port}//" for port in (dead, dead_too, rabbitmq.port)]

    def last_first(servers: list[str]) -> Iterator[str]:
        asked.append(servers)
        yield servers[0]
        while True:
            yield servers[-1]

    await sends(";".join(urls), broker_failover_strategy=last_first)
    assert asked[0] == urls
    await asyncio.to_thread(take, rabbitmq.url(), "connects")


async def test_after_a_loss_the_next_broker_takes_over(rabbitmq: RabbitMQ) -> None:
    async with proxy(rabbitmq.port) as first, proxy(rabbitmq.port) as second:
        celery = make_app(
            "failover",
            f"amqp://127.0.0.1:{first.port}//;amqp://127.0.0.1:{second.port}//",
            task_default_queue="connects",
        )
        async with Client(celery) as client:
            await client.send_task("nothing").sent()
            first.refuse = True
            first.cut()
            await client.send_task("nothing").sent()
            assert second.accepted >= 1
    assert len(await asyncio.to_thread(take, rabbitmq.url(), "connects")) == 2


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("amqp://guest:wr0ng-p4ssword@127.0.0.1:{port}//", "ACCESS_REFUSED"),
        ("amqp://127.0.0.1:{port}/missing", "vhost missing not found"),
        ("amqp://nobody:n0bodys-p4ssword@127.0.0.1:{port}//", "refused for user 'nobody'"),
    ],
)
async def test_a_refused_login_says_why_at_once_and_without_the_password(
    rabbitmq: RabbitMQ, url: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    began = time.monotonic()
    with pytest.raises(Refused, match=reason) as caught:
        await sends(url.format(port=rabbitmq.port))
    assert time.monotonic() - began < 10
    assert caught.value.code in {403, 530}
    assert "wr0ng-p4ssword" not in caplog.text + str(caught.value) + repr(caught.value)


@pytest.mark.parametrize("broker", ["sqs://127.0.0.1//", "memory://", "nonsense://x"])
async def test_an_unsupported_broker_says_which_are_supported(broker: str) -> None:
    with pytest.raises(InvalidOption, match=r"broker_url: .*supported are amqp://, amqps://"):
        await sends(broker)


async def test_an_unparsable_url_is_refused_without_quoting_it() -> None:
    with pytest.raises(InvalidOption, match="broker_url: can't be parsed") as caught:
        await sends("amqp://user:unparsable-s3cret@host:noport//")
    assert "unparsable-s3cret" not in str(caught.value)


async def test_a_broker_that_never_answers_is_given_up_in_time() -> None:
    async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silence, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    celery = make_app(
        "silent",
        f"amqp://127.0.0.1:{port}//",
        broker_connection_timeout=0.2,
        task_publish_retry_policy={"max_retries": 1, "interval_start": 0},
    )
    client = Client(celery, send_timeout=5)
    with pytest.raises(BrokerUnreachable, match="no answer in time"):
        await client.send_task("nothing").sent()
    hasty = Client(celery, send_timeout=0.1)
    with pytest.raises(BrokerUnreachable, match=r"within 0\.1 s"):
        await hasty.connect()
    await client.close()
    await hasty.close()
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize("what", ["connect", "purge"])
async def test_closing_while_connecting_leaves_no_connection(rabbitmq: RabbitMQ, what: str) -> None:
    async with proxy(rabbitmq.port) as between:
        between.delay = 0.2
        client = Client(make_app("leaves", f"amqp://127.0.0.1:{between.port}//"))
        work = client.connect() if what == "connect" else client.control.purge()
        connecting = asyncio.ensure_future(work)
        while not between.accepted:
            await asyncio.sleep(0.01)
        await client.close()
        with pytest.raises(ClientClosed):
            await connecting
        await asyncio.sleep(0.5)
        assert between.accepted == 1
        assert not between._writers


async def test_closing_while_results_are_connected_to_is_told(rabbitmq: RabbitMQ) -> None:
    async with proxy(rabbitmq.port) as reading:
        celery = make_app(
            "told",
            None,
            broker_read_url=f"amqp://127.0.0.1:{reading.port}//",
            broker_write_url=rabbitmq.url(),
        )
        reading.mute = True
        client = Client(celery, close_timeout=0.2)
        connecting = asyncio.create_task(client.connect())
        while not reading.accepted:
            await asyncio.sleep(0.01)
        session: Any = client._sessions.current
        await client.close()
        with pytest.raises(ClientClosed):
            await connecting
        with pytest.raises(ClientClosed):
            await session._results.prepare()


async def test_all_that_is_declared_at_once_is_declared_on_one_channel(
    lonely_client: Client,
) -> None:
    session: Any = lonely_client._sessions.current
    connection = session._outbox._publisher._connection
    channels = connection._connection.transport.connection.channels
    before = len(channels)
    exchanges = [
        Declaration.of("exchange_declare", name, {"type": "direct", "passive": True})
        for name in ("amq.direct", "amq.topic")
    ]
    await asyncio.gather(*map(connection.declare, exchanges))
    assert len(channels) == before + 1


async def test_a_declaration_that_is_refused_takes_no_other_one_with_it(
    lonely_client: Client,
) -> None:
    session: Any = lonely_client._sessions.current
    connection = session._outbox._publisher._connection
    refused, *good = (
        Declaration.of("exchange_declare", name, {"type": "direct", "passive": True})
        for name in ("there-is-none", "amq.direct", "amq.topic")
    )
    outcomes = await asyncio.gather(
        *map(connection.declare, [good[0], refused, good[1]]), return_exceptions=True
    )
    assert [type(outcome) for outcome in outcomes] == [type(None), Refused, type(None)]


async def test_a_declaration_that_is_cancelled_harms_no_later_one(rabbitmq: RabbitMQ) -> None:
    first, second, third = (
        Declaration.of("exchange_declare", f"amq.{kind}", {"type": kind, "passive": True})
        for kind in ("direct", "topic", "fanout")
    )
    async with (
        proxy(rabbitmq.port) as between,
        Client(make_app("late", f"amqp://127.0.0.1:{between.port}//")) as client,
    ):
        session: Any = client._sessions.current
        connection = session._outbox._publisher._connection
        await connection.declare(first)  # on a channel that the others will have, too
        between.delay = 0.1
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(connection.declare(second), 0.05)
        await connection.declare(third)


async def test_what_can_be_declared_is_declared_after_one_that_got_no_answer(
    rabbitmq: RabbitMQ,
) -> None:
    async with proxy(rabbitmq.port) as between:
        celery = make_app(
            "late", f"amqp://127.0.0.1:{between.port}//", broker_connection_timeout=0.5
        )
        async with Client(celery) as client:
            session: Any = client._sessions.current
            connection = session._results._consumer._connection
            exchange = Declaration.of(
                "exchange_declare", "amq.direct", {"type": "direct", "passive": True}
            )
            connection.hold()  # the client's own back-pressure: the connection stays
            with pytest.raises(BrokerUnreachable, match="no answer in time"):
                await connection.declare(exchange)
            opened = connection._connection
            release = asyncio.get_running_loop().call_later(0.2, connection.release)
            await connection.declare(exchange)
            release.cancel()
            assert connection._connection is opened
