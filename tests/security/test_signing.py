"""Message signing by ``app.setup_security``: both ways, with certificates, with a real worker."""

from __future__ import annotations

import asyncio
import datetime
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.security.serialization import register_auth
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from kombu.serialization import dumps, registry

from bridgetask import Client, ResultUndecodable

from ..fix_rabbitmq import close_celery
from ..servers import RabbitMQ, Worker
from .raw import publish


def make_certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """Write a key and a certificate that Celery can sign with: it knows RSA alone."""
    key = rsa.generate_private_key(65537, 2048)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    paths = folder / f"{name}.key", folder / f"{name}.pem"
    paths[0].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    paths[1].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return paths


@pytest.fixture(scope="module")
def environment(
    rabbitmq: RabbitMQ, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, str]]:
    """What tells the client and the worker who they are, and whom they trust."""
    trusted = tmp_path_factory.mktemp("trusted")
    keys = tmp_path_factory.mktemp("keys")
    told = {}
    for name in ("client", "worker"):
        key, certificate = make_certificate(keys, name)
        (trusted / f"{name}.pem").write_bytes(certificate.read_bytes())
        told[name] = {
            "BRIDGETASK_TEST_BROKER": rabbitmq.url(),
            "BRIDGETASK_TEST_KEY": str(key),
            "BRIDGETASK_TEST_CERTIFICATE": str(certificate),
            "BRIDGETASK_TEST_CERTIFICATES": f"{trusted}/*.pem",
        }
    return told


@pytest.fixture(scope="module", autouse=True)
def signing_worker(environment: dict[str, dict[str, str]]) -> Iterator[Worker]:
    with Worker(
        "tests.security.signed_tasks",
        environment=environment["worker"],
        queues=["signed"],
        name="signing",
    ) as worker:
        yield worker


@pytest.fixture
def signed_app(
    environment: dict[str, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Celery]:
    """The client's app. Celery sets signing up for the whole process; that is undone."""
    for name, value in environment["client"].items():
        monkeypatch.setenv(name, value)
    kept = {
        name: value.copy() if hasattr(value, "copy") else value
        for name, value in vars(registry).items()
    }
    from .signed_tasks import make_app

    celery = make_app()
    yield celery
    close_celery(celery)
    vars(registry).update(kept)


async def test_signed_tasks_and_signed_results_go_both_ways(signed_app: Celery) -> None:
    async with Client(signed_app) as client:
        assert await client.send_task("signed.add", (1, 2)).get(timeout=20) == 3
        with pytest.raises(ValueError, match="no"):
            await client.send_task("signed.fail", ("no",)).get(timeout=20)


async def test_the_messages_that_go_out_are_signed(signed_app: Celery) -> None:
    client = Client(signed_app)
    (message,) = client._sessions.codec.recorder.send_task("signed.add", (1, 2), None, {}).messages
    assert message.properties["content_type"] == "application/data"
    payload = registry._decoders["application/data"](message.body)
    assert payload[0] == [1, 2]
    assert b"signed.add" not in message.body


Forge = Callable[[dict[str, Any], Path], tuple[str, bytes]]


def unsigned(meta: dict[str, Any], _: Path) -> tuple[str, bytes]:
    return "application/json", json.dumps(meta).encode()


def unsigned_in_disguise(meta: dict[str, Any], _: Path) -> tuple[str, bytes]:
    return "application/data", json.dumps(meta).encode()


def signed_by_a_stranger(meta: dict[str, Any], folder: Path) -> tuple[str, bytes]:
    key, certificate = make_certificate(folder, "stranger")
    kept = registry._encoders["auth"], registry._decoders["application/data"]
    register_auth(key.read_text(), None, certificate.read_text(), f"{folder}/*.pem")
    content_type, _, body = dumps(meta, serializer="auth")
    registry._encoders["auth"], registry._decoders["application/data"] = kept
    return content_type, body.encode() if isinstance(body, str) else body


def altered(meta: dict[str, Any], _: Path) -> tuple[str, bytes]:
    content_type, _, body = dumps(meta, serializer="auth")
    import base64

    signed = base64.b64decode(body)
    assert b"forged" in signed
    return content_type, base64.b64encode(signed.replace(b"forged", b"harmed"))


@pytest.mark.parametrize("forge", [unsigned, unsigned_in_disguise, signed_by_a_stranger, altered])
async def test_an_unsigned_or_wrongly_signed_result_fails_alone(
    signed_app: Celery, rabbitmq: RabbitMQ, tmp_path: Path, forge: Forge
) -> None:
    async with Client(signed_app) as client:
        target = client.send_task("nobody.runs.this", queue="unsigned")
        await target.sent()
        meta = {"task_id": target.id, "status": "SUCCESS", "result": "forged", "children": []}
        content_type, body = await asyncio.to_thread(forge, meta, tmp_path)
        await asyncio.to_thread(
            publish, rabbitmq, client, body, content_type=content_type, correlation_id=target.id
        )
        with pytest.raises(ResultUndecodable, match=r"ContentDisallowed|SecurityError|DecodeError"):
            await target.get(timeout=20)
        assert await client.send_task("signed.add", (3, 4)).get(timeout=20) == 7


async def test_a_signed_result_cannot_be_passed_off_as_that_of_another_task(
    signed_app: Celery, rabbitmq: RabbitMQ
) -> None:
    """The id that counts is the one that was signed, and not the message's property."""
    async with Client(signed_app) as client:
        one, other = (client.send_task("nobody.runs.this", queue="unsigned") for _ in range(2))
        await other.sent()
        meta = {"task_id": one.id, "status": "SUCCESS", "result": "one's", "children": []}
        content_type, _, body = dumps(meta, serializer="auth")
        await asyncio.to_thread(
            publish, rabbitmq, client, body, content_type=content_type, correlation_id=other.id
        )
        assert await one.get(timeout=20) == "one's"
        assert not other.ready()
