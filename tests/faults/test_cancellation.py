"""Cancelling anything, at every point where it waits, harms nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import suppress
from typing import Any

import pytest

from bridgetask import AsyncResult, Client, ClientClosed, ResultUnavailable

from ..fix_proxy import Proxy
from ..fix_rabbitmq import make_app
from ..patience import LATE, PATIENCE
from ..servers import Worker

ADD = "tests.tasks.add"
PROGRESS = "tests.tasks.progress"

Operation = Callable[[Client], Coroutine[Any, Any, Any]]


class CancelAt:
    """Runs a coroutine, and cancels the task that runs it at its n-th point of waiting."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], n: int) -> None:
        self._coroutine = coroutine
        self._n = n
        self.reached = False

    def __await__(self) -> Generator[Any, Any, Any]:
        waited = 0
        step = self._coroutine.send
        answer: Any = None
        while True:
            try:
                awaited = step(answer)
            except StopIteration as stop:
                return stop.value
            waited += 1
            if waited == self._n:
                self.reached = True
                task = asyncio.current_task()
                assert task is not None
                task.cancel()  # reaches what is awaited as soon as the loop gets it
            try:
                answer = yield awaited
                step = self._coroutine.send
            except BaseException as error:
                answer, step = error, self._coroutine.throw


async def cancelled_at(coroutine: Coroutine[Any, Any, Any], n: int) -> bool:
    """Cancel ``coroutine`` where it waits for the n-th time; tell whether it got that far."""
    stepping = CancelAt(coroutine, n)

    async def run() -> Any:
        return await stepping

    task = asyncio.create_task(run())
    await asyncio.wait([task], timeout=PATIENCE)
    assert task.done()
    if stepping.reached and not task.cancelled():
        error = task.exception()
        assert error is None, error  # it had done its work, or cleaned up and said nothing
    elif not task.cancelled():
        task.result()
    return stepping.reached


async def at_every_point(work: Callable[[int], Awaitable[bool]]) -> int:
    """Do ``work(n)`` for n = 1, 2, ... until n is beyond the last point; return how many it was."""
    n = 1
    while await work(n):
        n += 1
        assert n < 500
    return n - 1


async def sends(client: Client) -> None:
    await client.send_task(ADD, (1, 1)).sent()


async def gets(client: Client) -> None:
    assert await client.send_task(ADD, (1, 1)) == 2


async def gets_in_time(client: Client) -> None:
    assert await client.send_task(ADD, (1, 1)).get(timeout=PATIENCE) == 2


async def gets_by_map(client: Client) -> None:
    calls = [client.send_task(ADD, (n, 1)) for n in range(20)]
    assert await asyncio.gather(*calls) == [n + 1 for n in range(20)]


async def connects(client: Client) -> None:
    await client.connect()


async def follows_updates(client: Client) -> None:
    states = [update.state async for update in client.send_task(PROGRESS, (3,)).updates()]
    assert states == ["PROGRESS"] * 3 + ["SUCCESS"]


async def revokes(client: Client) -> None:
    await client.send_task(ADD, (1, 1), countdown=60, expires=61).revoke()


async def pings(client: Client) -> None:
    assert await client.control.ping(timeout=PATIENCE, limit=1)


async def pings_over_a_cut(client: Client) -> None:
    """Replies go where the lost connection listened; none in time is an answer, too."""
    with suppress(ResultUnavailable):  # the loss was noticed while they were awaited
        assert len(await client.control.ping(timeout=0.3, limit=1)) <= 1


async def refreshes(client: Client) -> None:
    await client.send_task(ADD, (1, 1)).refresh()


async def collects(client: Client) -> None:
    assert [value async for _, value in client.send_task(ADD, (1, 1)).collect()] == [2]


OPERATIONS = [
    sends,
    gets,
    gets_in_time,
    gets_by_map,
    connects,
    follows_updates,
    revokes,
    pings,
    refreshes,
    collects,
]


@pytest.fixture
def through(proxy: Proxy, node_worker: Worker) -> str:
    return f"amqp://127.0.0.1:{proxy.port}//"


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda each: each.__name__)
async def test_cancelling_at_every_point_on_a_new_client(
    operation: Operation, through: str
) -> None:
    """The client was never used: connecting is under way, too. Another call is under way beside."""
    app = make_app("cancels", through)

    async def work(n: int) -> bool:
        async with Client(app) as other:
            client = Client(app)
            try:
                beside = [other.send_task(ADD, (n, 1)), client.send_task(ADD, (n, 2))]
                reached = await cancelled_at(operation(client), n)
                assert await asyncio.gather(*beside) == [n + 1, n + 2]
                assert await client.send_task(ADD, (2, 2)).get(timeout=PATIENCE) == 4
            finally:
                await client.close()
        return reached

    assert await at_every_point(work) >= 1


CUT = [pings_over_a_cut if each is pings else each for each in OPERATIONS]


@pytest.mark.parametrize("operation", CUT, ids=lambda each: each.__name__)
async def test_cancelling_at_every_point_on_a_client_whose_connections_were_cut(
    operation: Operation, through: str, proxy: Proxy
) -> None:
    """Connecting again, declaring and consuming again are under way."""
    async with Client(make_app("cancels", through)) as client:

        async def work(n: int) -> bool:
            proxy.cut()
            beside = client.send_task(ADD, (n, 1))
            reached = await cancelled_at(operation(client), n)
            assert await beside.get(timeout=PATIENCE) == n + 1
            return reached

        await at_every_point(work)
        assert await client.send_task(ADD, (2, 2)).get(timeout=PATIENCE) == 4


@pytest.mark.parametrize("state", ["idle", "used", "stalled"])
async def test_cancelling_a_close_at_every_point_leaves_nothing(
    state: str, through: str, proxy: Proxy
) -> None:
    """A close that is cancelled drops the connections on the spot."""
    app = make_app("cancels", through)

    async def work(n: int) -> bool:
        client = Client(app, close_timeout=0.5)
        handles: list[AsyncResult[Any]] = []
        if state != "idle":
            await client.connect()
            handles.append(client.send_task(ADD, (n, 1)))
        if state == "stalled":
            proxy.stall()
        reached = await cancelled_at(client.close(), n)
        with pytest.raises(ClientClosed):
            client.send_task(ADD, (1, 1))
        for handle in handles:  # it is settled, one way or the other
            await asyncio.wait([asyncio.ensure_future(handle.get())], timeout=LATE)
            assert handle._outcome.done
        proxy.heal()
        return reached

    await at_every_point(work)


async def test_cancelling_at_every_point_of_entering_a_client_closes_it(through: str) -> None:
    app = make_app("cancels", through)

    async def enters(client: Client) -> None:
        async with client:
            assert await client.send_task(ADD, (1, 1)) == 2

    async def work(n: int) -> bool:
        client = Client(app)
        reached = await cancelled_at(enters(client), n)
        assert client.closed
        return reached

    assert await at_every_point(work) >= 3
