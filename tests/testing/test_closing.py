"""What becomes of tasks, and of the thread that runs them, when a client ends."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
from celery import Celery

from bridgetask import ClientClosed
from bridgetask.testing import InMemoryClient

from .gate import LONG, Gate


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """Return a function that lists what bridgetask has logged."""

    def messages() -> list[str]:
        return [each.getMessage() for each in caplog.records if each.name.startswith("bridgetask")]

    return messages


def workers() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == "bridgetask worker"]


async def worker_ended() -> None:
    async with asyncio.timeout(LONG):
        while workers():
            await asyncio.sleep(0.01)


async def test_closing_waits_for_what_runs_and_for_what_that_sends(
    celery: Celery, gate: Gate, said: Callable[[], list[str]]
) -> None:
    @celery.task(shared=False, name="caller")
    def caller() -> str:
        gate()
        return str(celery.tasks["add"].delay(1, 2).id)

    client = InMemoryClient(celery, close_timeout=LONG)
    call = client.delay(caller)
    awaited = asyncio.create_task(call.get())
    await gate.reached()
    closing = asyncio.create_task(client.close())
    while not client.closed:
        await asyncio.sleep(0)
    with pytest.raises(ClientClosed):
        client.send_task("add", (1, 2))
    gate.open()
    await closing
    assert workers() == []
    assert [task.id for task in client.sent] == [call.id, await awaited]
    assert said() == []


async def test_closing_leaves_a_task_that_blocks_for_ever(
    celery: Celery, gate: Gate, said: Callable[[], list[str]]
) -> None:
    @celery.task(shared=False, name="block", bind=True)
    def block(self: Any) -> None:
        gate()
        self.update_state(state="LATE")

    client = InMemoryClient(celery, close_timeout=0.1)
    call, never = client.delay(block), client.send_task("add", (1, 2))
    awaited = asyncio.create_task(never.get())
    await never.sent()
    await gate.reached()
    async with asyncio.timeout(LONG):
        await client.close()
    for waits in (call, awaited):
        with pytest.raises(ClientClosed):
            await waits
    assert said() == [
        "Closing abandons 0 messages without a confirm, and 1 awaited results",
        f"Closing leaves block[{call.id}] running",
    ]
    gate.open()
    await worker_ended()
    assert [task.name for task in client.sent] == ["block", "add"]
    assert call._outcome.history == []


async def test_a_dropped_client_leaves_no_thread(celery: Celery) -> None:
    client = InMemoryClient(celery)
    assert await client.send_task("add", (1, 2)) == 3
    with pytest.warns(ResourceWarning, match="unclosed"):
        del client
        gc.collect()
    await worker_ended()


PROGRAM = """
import asyncio, gc, os, threading, warnings
from celery import Celery
from bridgetask.testing import InMemoryClient

warnings.simplefilter("ignore")
app = Celery("program", broker="memory://", backend="cache+memory://")

@app.task(name="add")
def add(x, y):
    return x + y

@app.task(name="block")
def block():
    threading.Event().wait()
"""


def run_program(code: str) -> str:
    command = [sys.executable, "-c", PROGRAM + code]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return finished.stdout


def test_a_task_that_blocks_for_ever_does_not_hold_up_the_end_of_the_program() -> None:
    assert (
        run_program("""
async def main():
    async with InMemoryClient(app, close_timeout=0.1) as client:
        await client.delay(block).sent()
    print("closed")

asyncio.run(main())
""")
        == "closed\n"
    )


def test_a_loop_that_is_closed_under_a_client_leaves_no_thread() -> None:
    assert (
        run_program("""
client = InMemoryClient(app)

async def call():
    return await client.delay(add, 1, 2)

loop = asyncio.new_event_loop()
print(loop.run_until_complete(call()))
[thread] = [each for each in threading.enumerate() if each.name == "bridgetask worker"]
loop.close()
del client, loop
while thread.is_alive():
    gc.collect()  # it may have held the client until now
    thread.join(0.1)
""")
        == "3\n"
    )


def test_a_forked_process_has_a_worker_of_its_own() -> None:
    assert (
        run_program("""
client = InMemoryClient(app)

async def call(x):
    return await client.delay(add, x, 2)

async def call_and_close(x):
    value = await call(x)
    await client.close()
    return value

loop = asyncio.new_event_loop()
print(loop.run_until_complete(call(1)), flush=True)
pid = os.fork()
if not pid:
    print(asyncio.run(call_and_close(2)), flush=True)
    os._exit(0)
os.waitpid(pid, 0)
print(loop.run_until_complete(call_and_close(3)))
""")
        == "3\n4\n5\n"
    )
