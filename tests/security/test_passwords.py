"""Passwords show up nowhere: the suite's own watch is tested here, and what is made of settings."""

from __future__ import annotations

import asyncio
import copy
import gc
import logging
import os
import pickle
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable
from typing import Any

import pytest
from celery import Celery
from twisted.logger import Logger

from bridgetask import BackendError, BridgetaskError, BrokerUnreachable, Client, InvalidOption
from bridgetask.testing import InMemoryClient
from bridgetask.transports.amqp.settings import AmqpSettings
from bridgetask.transports.plugs import Plugs
from bridgetask.twisted_compat import TwistedCelery

from ..fix_passwords import PASSWORDS, WATCH, PasswordWatch, spellings
from ..fix_rabbitmq import make_app
from ..servers import TESTERS_PASSWORD, RabbitMQ, free_ports

SECRET = "s3cr3t-m4rker"


def found_in(text: str) -> bool:
    return any(spelling in text for spelling in spellings(SECRET))


# The watch over the whole suite.


@pytest.mark.parametrize("password", PASSWORDS)
def test_the_watch_finds_a_password_that_is_logged(password: str) -> None:
    def in_a_traceback() -> None:
        try:
            raise ValueError(f"amqp://tester:{password}@host")
        except ValueError:
            logging.getLogger("some.library").debug("failed", exc_info=True)

    ways: list[Callable[[], object]] = [
        lambda: logging.getLogger("aiormq.connection").debug("to %r", f"amqp://a:{password}@h"),
        lambda: logging.getLogger("x").info("StartOk %r", b"\0tester\0" + password.encode()),
        lambda: Logger("twisted").info("{what}", what=password),
        in_a_traceback,
    ]
    for way in ways:
        way()
        assert len(WATCH.take()) == 1


async def test_the_watch_hears_what_aiormq_says_at_debug(lonely_client: Client) -> None:
    before = WATCH.seen
    await lonely_client.send_task("nothing").sent()
    assert WATCH.seen > before + 5


def test_the_watch_looks_at_records_that_cannot_be_formatted() -> None:
    watch = PasswordWatch((SECRET,))
    watch.emit(logging.LogRecord("x", 10, "", 0, "%d", (SECRET,), None))
    assert len(watch.take()) == 1


# What is made of settings.

URLS = {
    "plain": {"broker_url": f"amqp://tester:{SECRET}@127.0.0.1:1//"},
    "apart": {"broker_url": "amqp://127.0.0.1:1//", "broker_password": SECRET},
    "list": {
        "broker_url": [f"amqp://a:{SECRET}@127.0.0.1:1//", f"amqp://b:{SECRET}@127.0.0.1:2//"]
    },
    "semicolons": {
        "broker_url": f"amqp://a:{SECRET}@127.0.0.1:1//;amqp://b:{SECRET}@127.0.0.1:2//"
    },
    "read and write": {
        "broker_url": "amqp://127.0.0.1:1//",
        "broker_read_url": f"amqp://a:{SECRET}@127.0.0.1:1//",
        "broker_write_url": f"amqp://b:{SECRET}@127.0.0.1:2//",
    },
    "query": {"broker_url": f"amqp://a:{SECRET}@127.0.0.1:1//?heartbeat=5"},
    "redis": {
        "broker_url": "amqp://127.0.0.1:1//",
        "backend": f"redis://a:{SECRET}@127.0.0.1:1/0?password={SECRET}",
    },
    "sentinel": {
        "broker_url": "amqp://127.0.0.1:1//",
        "backend": f"sentinel://a:{SECRET}@127.0.0.1:1/0",
        "result_backend_transport_options": {
            "master_name": "m",
            "sentinel_kwargs": {"password": SECRET},
        },
    },
    "tls": {
        "broker_url": f"amqps://a:{SECRET}@127.0.0.1:1//",
        "broker_use_ssl": {"keyfile": SECRET, "password": SECRET},
    },
}


def shown(thing: object) -> list[str]:
    return [repr(thing), str(thing), f"{thing}"]


@pytest.mark.parametrize("conf", URLS.values(), ids=URLS)
def test_no_repr_shows_a_password(conf: dict[str, Any]) -> None:
    celery = make_app("hidden", None, **conf)
    client = Client(celery)
    plugs, settings = Plugs.of(celery), AmqpSettings.from_app(celery)
    things = [
        client,
        TwistedCelery(celery),
        InMemoryClient(celery),
        client._sessions.codec,
        plugs,
        settings,
    ]
    things += [plugs.broker, plugs.backend, getattr(plugs.backend, "settings", None)]
    for broker in (settings.write, settings.read):
        things += [broker, *broker.servers, next(broker.cycle())]
    for thing in things:
        for text in shown(thing):
            assert not found_in(text), text


@pytest.mark.parametrize("conf", URLS.values(), ids=URLS)
async def test_no_error_shows_a_password(
    conf: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    celery = make_app(
        "hidden", None, task_publish_retry_policy={"max_retries": 1, "interval_start": 0}, **conf
    )
    client = Client(celery, send_timeout=5)
    call = client.send_task("nothing")
    errors: list[BaseException] = []
    for waiting in (client.connect(), call.sent(), call.get(timeout=5)):
        with pytest.raises(BridgetaskError) as caught:
            await waiting
        errors.append(caught.value)
    await client.close()
    for error in errors:
        texts = [*shown(error), *shown(error.args), repr(vars(error))]
        texts.append("".join(traceback.format_exception(error)))
        texts.append(repr(pickle.dumps(error)))
        for text in texts:
            assert not found_in(text), text
    assert not found_in(caplog.text)
    assert isinstance(errors[0], BrokerUnreachable)


async def test_an_error_of_redis_shows_no_password(
    rabbitmq: RabbitMQ, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    (dead,) = free_ports(1)
    celery = make_app("hidden", rabbitmq.url(), f"redis://a:{SECRET}@127.0.0.1:{dead}/0")
    client = Client(celery, send_timeout=2)
    with pytest.raises(BackendError) as caught:
        await client.connect()
    await client.close()
    error = caught.value
    for text in [*shown(error), "".join(traceback.format_exception(error)), caplog.text]:
        assert not found_in(text), text


@pytest.mark.parametrize(
    "url",
    [
        f"amqp://a:{SECRET}@host:noport//",
        f"amqp://a:{SECRET}@host:99999999//",
        f"amqp://a:{SECRET}@[::1//",
        f"nonsense://a:{SECRET}@host//",
        f"amqp://a:{SECRET}@host//;redis://a:{SECRET}@host//",
        f"a:{SECRET}@host",
        f"amqp://a:{SECRET}@host//?password={SECRET}",
        f"amqp://a:{SECRET}@host//?connect_timeout={SECRET}",
        f"amqp://a:{SECRET}@host//?heartbeat={SECRET}",
    ],
)
async def test_a_url_that_cannot_be_used_is_not_quoted(url: str) -> None:
    client = Client(make_app("hidden", url), send_timeout=2)
    with pytest.raises(BridgetaskError) as caught:
        await client.connect()
    await client.close()
    text = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    # The line of this test that made the URL is not in it either: it names SECRET, not its value.
    assert not found_in(text), text


def test_a_password_that_is_asked_for_is_not_kept_in_settings() -> None:
    celery = make_app("asks", "amqp://127.0.0.1:1//", broker_password=lambda: SECRET)
    settings = AmqpSettings.from_app(celery)
    assert not found_in(repr(settings))
    assert not found_in(repr(copy.copy(settings.write.servers[0])))


async def test_an_unclosed_client_warns_without_the_password() -> None:
    (dead,) = free_ports(1)
    celery = make_app("dropped", f"amqp://a:{SECRET}@127.0.0.1:{dead}//")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        client = Client(celery, send_timeout=0.5)
        client.send_task("nothing", ignore_result=True)
        del client
        for _ in range(100):
            await asyncio.sleep(0.1)
            gc.collect()
            if any("unclosed" in str(each.message) for each in caught):
                break
    assert any("unclosed" in str(each.message) for each in caught)
    assert not any(found_in(str(each.message)) for each in caught)


PROGRAM = """
import asyncio, logging, os
logging.basicConfig(level=logging.DEBUG, format="%(name)s %(message)s")
from celery import Celery
from bridgetask import Client

app = Celery("quiet", broker=os.environ["BROKER"], backend="rpc://")

async def main():
    async with Client(app) as client:
        await client.send_task("nothing", queue="quiet", task_id="one").sent()
        print(client, client._sessions.codec, client._plug())
        await asyncio.sleep(0)

asyncio.run(main(), debug=True)
"""


def test_a_program_that_logs_all_it_can_shows_no_password(rabbitmq: RabbitMQ) -> None:
    finished = subprocess.run(
        [sys.executable, "-X", "dev", "-c", PROGRAM],
        env={**os.environ, "BROKER": rabbitmq.url()},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    said = finished.stdout + finished.stderr
    assert "aiormq" in said
    assert "bridgetask" in said
    for spelling in spellings(TESTERS_PASSWORD):
        assert spelling not in said


async def test_events_and_task_messages_carry_no_password(lonely_app: Celery) -> None:
    lonely_app.conf.task_send_sent_event = True
    async with Client(lonely_app) as client:
        call = client._sessions.codec.recorder.send_task("nothing", None, None, {})
    assert len(call.messages) == 2
    for message in call.messages:
        text = repr(message.body) + repr(message.properties) + repr(message)
        for spelling in spellings(TESTERS_PASSWORD):
            assert spelling not in text


def test_a_refused_option_names_itself_and_shows_no_url() -> None:
    celery = make_app("hidden", f"sqs://a:{SECRET}@127.0.0.1//")
    with pytest.raises(InvalidOption) as caught:
        Plugs.of(celery)
    assert not found_in(str(caught.value) + repr(caught.value))
