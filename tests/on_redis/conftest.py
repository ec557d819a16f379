"""The fixtures of the tests on RabbitMQ, with Redis as the broker in its place."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from celery import Celery

from ..fix_rabbitmq import close_celery, make_app
from ..redis_servers import Redis
from ..servers import Worker

#: The database of a worker that tests may tell what they like.
_SPARE_DB = 13


@pytest.fixture(scope="session")
def broker_url(redis_server: Redis) -> str:
    return redis_server.url(12)


@pytest.fixture(scope="session")
def worker(redis_rpc_worker: Worker) -> Worker:
    return redis_rpc_worker


@pytest.fixture
def app(redis_rpc_app: Celery) -> Celery:
    return redis_rpc_app


@pytest.fixture
def lonely_app(redis_lonely_app: Celery) -> Celery:
    return redis_lonely_app


@pytest.fixture
def redis_app(redis_broker_app: Celery) -> Celery:
    return redis_broker_app


@pytest.fixture(scope="module")
def spare_worker(redis_server: Redis) -> Iterator[Worker]:
    with Worker(
        "tests.tasks",
        environment={"BRIDGETASK_TEST_BROKER": redis_server.url(_SPARE_DB)},
        name="spare",
        concurrency=1,
        options=("--", "_pool_restarts=1"),
    ) as running:
        yield running


@pytest.fixture
def spare_app(redis_server: Redis, spare_worker: Worker) -> Iterator[Celery]:
    celery = make_app("spare", redis_server.url(_SPARE_DB))
    yield celery
    close_celery(celery)
