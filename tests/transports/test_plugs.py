"""Which carriers an app's configuration names, and that no others are imported."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from celery import Celery

from bridgetask import InvalidOption
from bridgetask.transports.plugs import Plugs


def plugs(broker: Any = "amqp://", backend: Any = "rpc://", **conf: Any) -> Plugs:
    celery = Celery("plugs", broker=broker, backend=backend, set_as_current=False)
    celery.conf.update(conf)
    return Plugs.of(celery)


def test_a_bad_broker_is_refused_by_the_setting_it_came_from() -> None:
    with pytest.raises(InvalidOption, match=r"broker_url: sqs:// is not supported"):
        plugs("amqp://a//;sqs://b//")
    with pytest.raises(InvalidOption, match=r"broker_url: memory:// is not supported"):
        plugs("amqp://a//", broker_transport="memory")


def test_a_backend_that_is_not_known_is_named_and_refuses_calls() -> None:
    from celery.backends.cache import CacheBackend

    backend = plugs(backend=CacheBackend).backend
    assert backend.unavailable is not None
    assert backend.unavailable.startswith("the backend CacheBackend:// is not supported")
    assert backend.refuses_calls


def test_without_a_backend_calls_are_sent_and_no_result_comes() -> None:
    backend = plugs(backend=None).backend
    assert backend.unavailable is not None
    assert backend.unavailable.startswith("no result backend is configured")
    assert not backend.refuses_calls


@pytest.mark.parametrize(
    ("backend", "pushes", "stores", "uses_reply_to"),
    [
        ("rpc://", True, False, True),
        ("redis://", True, True, False),
        (None, False, False, False),
    ],
)
def test_a_backend_says_what_it_can_do(
    backend: Any, pushes: bool, stores: bool, uses_reply_to: bool
) -> None:
    found = plugs(backend=backend).backend.capabilities
    assert (found.pushes, found.stores, found.uses_reply_to) == (pushes, stores, uses_reply_to)


def test_without_the_redis_package_it_is_said_what_to_install() -> None:
    code = (
        "import sys; sys.modules['redis'] = None\n"
        "from celery import Celery\n"
        "from bridgetask import Client\n"
        "app = Celery(broker='amqp://', backend='redis://')\n"
        "Client(app)._sessions.codec"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert "InvalidOption: result_backend: needs the package redis" in ended.stderr
    assert "install bridgetask[redis]" in ended.stderr


def test_nothing_of_redis_is_imported_unless_an_app_asks_for_it() -> None:
    code = (
        "import sys; from celery import Celery; from bridgetask import Client\n"
        "Client(Celery(broker='amqp://', backend='rpc://'))._sessions.codec\n"
        "assert not [name for name in sys.modules if name.split('.')[0] == 'redis']"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_nothing_of_rabbitmq_is_imported_before_an_app_asks_for_it() -> None:
    code = (
        "import sys; import bridgetask\n"
        "amqp = {'aio_pika', 'aiormq', 'pamqp', 'yarl'}\n"
        "assert not [name for name in sys.modules if name.split('.')[0] in amqp]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
