"""Whom rediss:// trusts: real certificates, a real server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bridgetask import BackendUnreachable, Client, InvalidOption

from ...fix_rabbitmq import make_app
from ...fix_redis import AppFactory
from ...redis_servers import Redis
from .test_connection import exchanges, refused


@pytest.fixture(scope="module")
def elsewhere(certificates: dict[str, Path]) -> Iterator[Redis]:
    """A server at an address too that its certificate does not name: 127.0.0.2."""
    with Redis(
        tls={"ca": certificates["ca"], "cert": certificates["cert"], "key": certificates["key"]},
        config={"bind": "127.0.0.1 127.0.0.2"},
    ) as server:
        yield server


@pytest.fixture
def tls(certificates: dict[str, Path]) -> dict[str, Any]:
    return {
        "ssl_cert_reqs": "required",
        "ssl_ca_certs": str(certificates["ca"]),
        "ssl_certfile": str(certificates["client_cert"]),
        "ssl_keyfile": str(certificates["client_key"]),
    }


async def connects(store_app: AppFactory, url: str, tls: dict[str, Any]) -> None:
    async with Client(store_app(url, redis_backend_use_ssl=tls)) as client:
        await asyncio.wait_for(client.connect(), 20)


async def test_a_private_ca_and_a_client_certificate_connect(
    store_app: AppFactory, redis_server: Redis, tls: dict[str, Any]
) -> None:
    query = "&".join(f"{key}={value}" for key, value in tls.items())
    await exchanges(store_app, f"rediss://127.0.0.1:{redis_server.tls_port}/0?{query}")
    at = f"rediss://localhost:{redis_server.tls_port}/0"
    await exchanges(store_app, at, redis_backend_use_ssl=tls)
    unverified = {**tls, "ssl_cert_reqs": "none", "ssl_check_hostname": False}
    await exchanges(store_app, at, redis_backend_use_ssl=unverified)


@pytest.mark.parametrize(
    "wrong", [{"ssl_ca_certs": "other_ca"}, {"ssl_certfile": None, "ssl_keyfile": None}], ids=str
)
async def test_what_does_not_fit_is_refused(
    store_app: AppFactory,
    redis_server: Redis,
    tls: dict[str, Any],
    certificates: dict[str, Path],
    wrong: dict[str, Any],
) -> None:
    options = {**tls, **wrong}
    if wrong.get("ssl_ca_certs"):
        options["ssl_ca_certs"] = str(certificates["other_ca"])
    at = f"rediss://127.0.0.1:{redis_server.tls_port}/0"
    error = await refused(store_app, at, redis_backend_use_ssl=options)
    assert isinstance(error, BackendUnreachable)


async def test_a_certificate_that_names_another_host_is_refused(
    store_app: AppFactory, elsewhere: Redis, tls: dict[str, Any]
) -> None:
    tls["ssl_check_hostname"] = True  # redis-py's default from version 6 on
    await connects(store_app, f"rediss://127.0.0.1:{elsewhere.tls_port}/0", tls)
    with pytest.raises(BackendUnreachable, match=r"TLS failed|CERTIFICATE_VERIFY_FAILED"):
        await connects(store_app, f"rediss://127.0.0.2:{elsewhere.tls_port}/0", tls)


@pytest.mark.parametrize("authority", ["other_ca", None])
async def test_a_certificate_of_an_unknown_authority_is_refused(
    store_app: AppFactory,
    elsewhere: Redis,
    tls: dict[str, Any],
    certificates: dict[str, Path],
    authority: str | None,
) -> None:
    """None: the system's, which do not know the test's."""
    tls["ssl_ca_certs"] = str(certificates[authority]) if authority else None
    with pytest.raises(BackendUnreachable, match=r"TLS failed|CERTIFICATE_VERIFY_FAILED"):
        await connects(store_app, f"rediss://127.0.0.1:{elsewhere.tls_port}/0", tls)


@pytest.mark.parametrize("missing", ["ssl_ca_certs", "ssl_certfile", "ssl_keyfile"])
async def test_a_file_that_is_missing_is_an_error_and_nothing_is_sent_unverified(
    store_app: AppFactory, elsewhere: Redis, tls: dict[str, Any], missing: str
) -> None:
    tls[missing] = "/nowhere/at/all.pem"
    with pytest.raises(BackendUnreachable, match="No such file"):
        await connects(store_app, f"rediss://127.0.0.1:{elsewhere.tls_port}/0", tls)


async def test_whether_to_verify_must_be_said_as_in_celery() -> None:
    client = Client(make_app("unsaid", "amqp://", "rediss://127.0.0.1:1/0"))
    with pytest.raises(InvalidOption, match="ssl_cert_reqs"):
        client.send_task("nothing")


async def test_a_server_without_tls_is_not_talked_to_in_plain(
    store_app: AppFactory, elsewhere: Redis, tls: dict[str, Any]
) -> None:
    with pytest.raises(BackendUnreachable, match=r"TLS failed|no answer|closed|reset"):
        await connects(store_app, f"rediss://127.0.0.1:{elsewhere.port}/0", tls)
