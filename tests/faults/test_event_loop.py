"""The event loop is blocked, replaced, or left behind by a fork."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable

from bridgetask import Client

from ..fix_rabbitmq import make_app
from ..patience import PATIENCE
from ..servers import RabbitMQ, Worker
from .callers import Caller

SLEEP = "tests.tasks.sleep"


async def test_mode_12_a_loop_blocked_past_the_heartbeat_loses_nothing(
    callers: Callable[..., list[Caller]], node: RabbitMQ, node_worker: Worker
) -> None:
    opened = callers(node.url(), heartbeat=1)
    pending = [calls.send_task(SLEEP, (0.01, number)) for calls in opened for number in range(100)]
    await asyncio.gather(*(call.sent() for call in pending))
    time.sleep(3)  # RabbitMQ gives the connections up
    assert await asyncio.gather(*pending) == [*range(100), *range(100)]
    assert await asyncio.gather(*(calls.send_task(SLEEP, (0, 1)) for calls in opened)) == [1, 1]


def run(program: str, node: RabbitMQ, **environment: str) -> str:
    """Run a program in a process of its own, and return what it prints."""
    prelude = """
        import asyncio, os, sys, time
        from bridgetask import *
        from bridgetask import Client
        from tests.tasks import app

        async def add(client, x, y):
            return await client.send_task("tests.tasks.add", (x, y)).get(timeout=60)

        def in_child(function):
            '''Fork, run function in the child, and return the child's exit code.'''
            pid = os.fork()
            if not pid:
                code = 1
                try:
                    function()
                    code = 0
                except BaseException:
                    import traceback
                    traceback.print_exc()
                finally:
                    sys.stdout.flush()
                    os._exit(code)
            return pid

        def ended(pid):
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    """
    finished = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(prelude) + textwrap.dedent(program)],
        env={**os.environ, "BRIDGETASK_TEST_BROKER": node.url(), **environment},
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def test_mode_15_two_runs_of_asyncio_share_a_client(node: RabbitMQ, node_worker: Worker) -> None:
    """Each ``asyncio.run`` has a loop of its own, which the client that a module holds follows."""
    printed = run(
        """
        client = Client(app)
        async def main(x):
            print(await add(client, x, 1), flush=True)
            if x == 2:
                await client.close()
        import warnings
        warnings.simplefilter("ignore", ResourceWarning)
        asyncio.run(main(1))
        asyncio.run(main(2))
        """,
        node,
    )
    assert printed == "2\n3\n"


def test_mode_15_a_client_made_before_forks_works_in_every_process(
    node: RabbitMQ, node_worker: Worker
) -> None:
    """As in a server that loads the program, then forks its workers (gunicorn's preload)."""
    printed = run(
        """
        client = Client(app)

        async def serve(number):
            async with client:
                answers = await asyncio.gather(*(add(client, number, n) for n in range(50)))
                assert answers == [number + n for n in range(50)], answers

        children = [in_child(lambda: asyncio.run(serve(1000 * n))) for n in range(4)]
        print([ended(pid) for pid in children])
        """,
        node,
    )
    assert printed == "[0, 0, 0, 0]\n"


def test_mode_15_a_client_in_use_works_on_in_both_processes_after_a_fork(
    node: RabbitMQ, node_worker: Worker
) -> None:
    """Results go to the process that sent the task, and the parent's connections are its own."""
    printed = run(
        """
        client = Client(app)

        def child():
            async def main():
                answers = await asyncio.gather(*(add(client, 1000, n) for n in range(50)))
                assert answers == [1000 + n for n in range(50)], answers
                await client.close()
            asyncio.run(main())

        async def parent():
            print(await add(client, 1, 1), flush=True)
            pending = [client.send_task("tests.tasks.sleep", (0.05, n)) for n in range(50)]
            await asyncio.gather(*(call.sent() for call in pending))
            pid = in_child(child)
            assert await asyncio.gather(*pending) == list(range(50))
            print(await asyncio.to_thread(ended, pid))
            assert await add(client, 2, 2) == 4
            await client.close()

        asyncio.run(parent())
        """,
        node,
    )
    assert printed == "2\n0\n"


def test_mode_15_a_twisted_client_in_use_works_in_a_child_on_the_default_reactor(
    node: RabbitMQ, node_worker: Worker
) -> None:
    """The loop's thread is not there after a fork; the child starts one of its own."""
    printed = run(
        """
        from twisted.internet import reactor
        from bridgetask.twisted_compat import TwistedCelery

        tx_app = TwistedCelery(app)
        tx_app.send_task("tests.tasks.add", (1, 1))  # the loop's thread runs from here on
        time.sleep(1)

        def serve(number):
            def call():
                d = tx_app.send_task("tests.tasks.add", (number, 1))
                d.addBoth(lambda result: print(result, flush=True))
                d.addBoth(lambda _: reactor.stop())
            reactor.callWhenRunning(call)
            reactor.run()

        print(ended(in_child(lambda: serve(10))), flush=True)
        serve(20)
        """,
        node,
    )
    assert printed == "11\n0\n21\n"


def test_mode_15_a_client_works_inside_a_celery_task(node: RabbitMQ, node_worker: Worker) -> None:
    """The worker's main process imported the module that holds the client, and forked."""
    environment = {"BRIDGETASK_TEST_BROKER": node.url()}
    with Worker(
        "tests.faults.calling_tasks",
        environment=environment,
        name="calling",
        queues=["calling"],
        covered=True,
    ):

        async def main() -> None:
            async with Client(make_app("calls", node.url())) as client:
                tasks = [
                    client.send_task("calls_a_task", (number,), queue="calling")
                    for number in range(20)
                ]
                assert await asyncio.gather(*tasks) == [number + 1 for number in range(20)]

        asyncio.run(main())
