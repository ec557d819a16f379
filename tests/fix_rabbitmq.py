"""Fixtures: one RabbitMQ node and one worker for the whole run, an app for each test."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from kombu import Connection, pools

from bridgetask.transports.amqp import plug as _plug  # noqa: F401 (the first client would block)

from .certificates import make_certificates
from .servers import RabbitMQ, Worker

#: What ``max_message_size`` of the node is.
MESSAGE_LIMIT = 4 * 1024 * 1024


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def rabbitmq(certificates: dict[str, Path]) -> Iterator[RabbitMQ]:
    """A private node with users, virtual hosts, TLS and a limit on the size of messages."""
    with RabbitMQ(
        users={"alice": "s3cr3t p@ss/word", "nobody": "n0bodys-p4ssword", "client": "unused"},
        virtual_hosts=("/", "plain", "a/b", "per%cent", "umläut"),
        tls={"ca": certificates["ca"], "cert": certificates["cert"], "key": certificates["key"]},
        plugins=("rabbitmq_auth_mechanism_ssl",),
        config={"max_message_size": MESSAGE_LIMIT},
    ) as node:
        yield node


@pytest.fixture(scope="session")
def broker_url(request: pytest.FixtureRequest) -> str:
    """The URL of a RabbitMQ: ``BRIDGETASK_AMQP_URL``, or the private node."""
    named = os.environ.get("BRIDGETASK_AMQP_URL")
    return named or request.getfixturevalue("rabbitmq").url()


@pytest.fixture(scope="session")
def worker(broker_url: str) -> Iterator[Worker | None]:
    """A worker for ``tests.tasks``, which reports STARTED; None where one runs already."""
    if os.environ.get("BRIDGETASK_TEST_WORKER"):
        yield None
        return
    environment = {"BRIDGETASK_TEST_BROKER": broker_url, "BRIDGETASK_TEST_TRACK_STARTED": "1"}
    with Worker("tests.tasks", environment=environment, name="tests") as running:
        yield running


@pytest.fixture
def app(broker_url: str, worker: Worker | None) -> Iterator[Celery]:
    """The app of ``tests.tasks``, whose tasks a worker runs."""
    from . import tasks

    tasks.app.conf.broker_url = broker_url
    configured(tasks.app)
    yield tasks.app
    close_celery(tasks.app)


@pytest.fixture
def lonely_app(broker_url: str) -> Iterator[Celery]:
    """An app of the test's own, whose default queue no worker consumes."""
    celery = make_app("lonely", broker_url, task_default_queue="lonely")
    yield celery
    close_celery(celery)


@pytest.fixture(scope="module")
def spare_worker(rabbitmq: RabbitMQ) -> Iterator[Worker]:
    """A worker in a virtual host of its own, which tests may tell what they like."""
    with Worker(
        "tests.tasks",
        environment={"BRIDGETASK_TEST_BROKER": rabbitmq.url("plain")},
        name="spare",
        concurrency=1,
        options=("--", "_pool_restarts=1"),
    ) as running:
        yield running


@pytest.fixture
def spare_app(rabbitmq: RabbitMQ, spare_worker: Worker) -> Iterator[Celery]:
    """An app whose tasks the spare worker runs."""
    celery = make_app("spare", rabbitmq.url("plain"))
    yield celery
    close_celery(celery)


def make_app(name: str, broker: str | None, backend: str | None = "rpc://", **conf: Any) -> Celery:
    """Return an app that has read its configuration."""
    celery = Celery(name, broker=broker, backend=backend, set_as_current=False)
    celery.conf.update(conf)
    return configured(celery)


def configured(celery: Celery) -> Celery:
    """Make an app read its configuration now: that looks at files, and so blocks."""
    assert celery.conf.get("broker_url") != ""
    return celery


def close_celery(celery: Celery) -> None:
    """Close what Celery's own client opened in this process."""
    backend = celery._backend
    if backend is not None and getattr(backend, "result_consumer", None) is not None:
        if getattr(backend.result_consumer, "_consumer", None) is not None:
            backend.result_consumer.stop()
        celery._local.__dict__.pop("backend", None)
    pools.reset()  # kombu's pools are for the whole process
    celery._pool = None
    celery.amqp._producer_pool = None


def take(broker: str, queue: str, *, delete: bool = True) -> list[Any]:
    """Return all messages of a queue as kombu reads them, and delete the queue."""
    with Connection(broker) as connection:
        channel = connection.default_channel
        messages = []
        while (message := channel.basic_get(queue, no_ack=True)) is not None:
            messages.append(channel.message_to_python(message))
        if delete:
            channel.queue_delete(queue)
        return messages
