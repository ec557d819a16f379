"""Connecting and closing, in every state of the network: within the deadline, and for good."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from bridgetask import BrokerUnreachable, ClientClosed, NotSent, Refused, SendError, Unconfirmed

from ..fix_proxy import Proxy, black_hole
from ..patience import LATE
from ..servers import RabbitMQ, Worker, free_ports
from .callers import Caller
from .load import PATIENT

ADD = "tests.tasks.add"


@pytest.fixture(params=["refused", "black hole", "silent"])
async def nowhere(request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """The URL of a broker that can't be connected to."""
    if request.param == "refused":
        yield f"amqp://127.0.0.1:{free_ports(1)[0]}//"
    elif request.param == "black hole":
        with black_hole() as port:
            yield f"amqp://127.0.0.1:{port}//"
    else:
        with Proxy(free_ports(1)[0]) as silent:
            silent.stall()
            yield f"amqp://127.0.0.1:{silent.port}//"


async def test_mode_3_the_first_connect_obeys_one_deadline(
    caller: Callable[..., Caller], nowhere: str
) -> None:
    calls = caller(nowhere, send_timeout=3, close_timeout=1, conf=PATIENT)
    began = time.monotonic()
    connecting = asyncio.ensure_future(calls.connect())
    sending = calls.send_task(ADD, (1, 1))
    with pytest.raises(BrokerUnreachable):
        await connecting
    with pytest.raises(NotSent):
        await sending.sent()
    with pytest.raises(NotSent):
        await sending
    assert time.monotonic() - began < 2 * 3  # one deadline for all, not one after the other


async def test_mode_3_a_wrong_password_is_refused_at_once(
    caller: Callable[..., Caller], node: RabbitMQ
) -> None:
    calls = caller(node.url(password="wrong"), send_timeout=60, conf=PATIENT)
    began = time.monotonic()
    for attempt in (calls.connect(), calls.send_task(ADD, (1, 1)).sent()):
        with pytest.raises(Refused, match="ACCESS_REFUSED"):
            await attempt
    assert time.monotonic() - began < 2 * LATE


async def test_a_user_that_is_deleted_is_told_and_comes_back_when_it_does(
    caller: Callable[..., Caller], node: RabbitMQ, queue: str
) -> None:
    calls = caller(node.url(user="leaver", password="leaver"), send_timeout=60)
    await calls.send_task("nothing", queue=queue).sent()
    await asyncio.to_thread(node.ctl, "delete_user", "leaver")  # closes its connections, too
    # It may still leave on the connection that is about to be closed.
    with pytest.raises((Refused, Unconfirmed), match="ACCESS_REFUSED"):
        await calls.send_task("nothing", queue=queue).sent()
    await asyncio.to_thread(node.ctl, "add_user", "leaver", "leaver")
    await asyncio.to_thread(node.ctl, "set_permissions", "leaver", ".*", ".*", ".*")
    await calls.send_task("nothing", queue=queue).sent()


@pytest.fixture
def alarm(node: RabbitMQ) -> Iterator[Callable[[bool], None]]:
    """Raises the memory alarm; one that was raised is cleared in the end."""
    raised: list[bool] = []

    def set_alarm(on: bool) -> None:
        raised.append(on)
        node.set_memory_alarm(on)

    yield set_alarm
    if raised and raised[-1]:
        node.set_memory_alarm(False)


STATES = [
    "connecting",
    "idle",
    "down",
    "stalled",
    "half-open",
    "unconfirmed",
    "throttled",
    "blocked",
]


@pytest.mark.parametrize("state", STATES)
async def test_mode_13_closing_ends_in_time_and_says_what_it_abandoned(
    caller: Callable[..., Caller],
    proxy: Proxy,
    node: RabbitMQ,
    queue: str,
    state: str,
    alarm: Callable[[bool], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    calls = caller(f"amqp://127.0.0.1:{proxy.port}//", close_timeout=1.5, conf=PATIENT)
    if state == "connecting":
        proxy.stall()
    else:
        await calls.send_task("nothing", queue=queue).sent()
    if state == "down":
        proxy.refuse()
        proxy.cut()
        await asyncio.sleep(0.2)
    elif state == "stalled":
        proxy.stall()
    elif state == "half-open":
        proxy.drop()
    elif state == "unconfirmed":
        proxy.swallow_confirms()
    elif state == "throttled":
        proxy.throttle(100)
    elif state == "blocked":
        await asyncio.to_thread(alarm, True)
    awaited = [] if state == "idle" else [calls.send_task("nothing", queue=queue) for _ in range(9)]
    await asyncio.sleep(0.2)
    waiting = [asyncio.ensure_future(call.get()) for call in awaited]
    await asyncio.sleep(0)
    began = time.monotonic()
    await calls.close()
    assert time.monotonic() - began < 1.5 + LATE
    for call, outcome in zip(
        awaited, await asyncio.gather(*waiting, return_exceptions=True), strict=True
    ):
        assert isinstance(outcome, (SendError, ClientClosed)), outcome
        assert not isinstance(outcome, SendError) or outcome.task_id == call.id
        if state in {"connecting", "down"}:
            assert not isinstance(outcome, Unconfirmed)
        if state == "unconfirmed":
            assert isinstance(outcome, Unconfirmed)
    with pytest.raises(ClientClosed):
        calls.send_task("nothing", queue=queue)
    if awaited:
        assert "abandons 9 messages" in caplog.text
    proxy.heal()
    accepted = proxy.accepted
    await asyncio.sleep(0.3)
    assert (proxy.open, proxy.accepted) == (0, accepted)
    assert "Task was destroyed" not in caplog.text


async def test_a_task_that_only_waits_is_told_that_the_client_was_closed(
    caller: Callable[..., Caller], proxy: Proxy, node_worker: Worker
) -> None:
    calls = caller(f"amqp://127.0.0.1:{proxy.port}//", close_timeout=1)
    call = calls.send_task("tests.tasks.sleep", (1,))
    await call.sent()
    waiting = asyncio.ensure_future(call.get())
    await asyncio.sleep(0)
    await calls.close()
    with pytest.raises(ClientClosed):
        await waiting
