"""Show bridgetask at work: asyncio, Twisted, and a burst of tasks. Run by scripts/demo."""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

PROJECT = Path(__file__).resolve().parent.parent
EXAMPLES = PROJECT / "examples"
sys.path[:0] = [str(PROJECT), str(EXAMPLES)]

from tests.servers import RabbitMQ, Worker  # noqa: E402

console = Console(highlight=False)


@contextmanager
def broker() -> Iterator[str]:
    named = os.environ.get("BRIDGETASK_AMQP_URL")
    if named:
        console.print("[bold]Using the RabbitMQ that BRIDGETASK_AMQP_URL names[/]")
        yield named
        return
    with console.status("Starting a private RabbitMQ node"):
        node = RabbitMQ()
        node.__enter__()
    try:
        console.print(f"[bold]Started a private RabbitMQ node[/] on port {node.port}")
        yield node.url()
    finally:
        with console.status("Stopping RabbitMQ"):
            node.stop()


def run_example(name: str, environment: dict[str, str]) -> None:
    console.rule(f"examples/{name}")
    subprocess.run([sys.executable, name], cwd=EXAMPLES, env=environment, check=True, timeout=60)


async def burst(count: int) -> None:
    """Call ``count`` tasks at once, and watch how late a 5 ms ticker on the same loop gets."""
    from tasks import app, my_task

    from bridgetask import Client

    loop = asyncio.get_running_loop()
    worst = 0.0

    async def tick() -> None:
        nonlocal worst
        while True:
            due = loop.time() + 0.005
            await asyncio.sleep(0.005)
            worst = max(worst, loop.time() - due)

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    async with Client(app) as client:
        await client.delay(my_task, 0, 0)
        gc.collect()
        gc.freeze()  # what services do once they are up: full collections then skip all modules
        threads = threading.active_count()
        with Progress(*columns, console=console, auto_refresh=False) as progress:
            bar = progress.add_task("results", total=count)
            ticker = asyncio.create_task(tick())
            began = time.perf_counter()

            calls = []
            for number in range(count):
                calls.append(client.delay(my_task, number, 1))
                if number % 50 == 49:
                    await asyncio.sleep(0)  # recording a call takes 0.1 ms: let the loop turn
            shown = time.perf_counter()
            for done, call in enumerate(calls, 1):
                assert await call == done
                if time.perf_counter() - shown > 0.1 or done == count:
                    shown = time.perf_counter()
                    progress.update(bar, completed=done)
                    progress.refresh()
            took = time.perf_counter() - began
            ticker.cancel()
        console.print(
            f"{count} tasks called, run and answered in {took:.2f} s, "
            f"{count / took:.0f} a second.\n"
            f"The event loop was never late by more than {worst * 1000:.1f} ms. "
            f"Extra threads: {threading.active_count() - threads}."
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--burst", type=int, default=2000, help="tasks to call at once")
    count = parser.parse_args().burst
    with broker() as url:
        os.environ["BROKER_URL"] = url
        environment = dict(os.environ)
        with Worker("tasks", environment=environment, name="demo", folder=EXAMPLES) as worker:
            console.print(f"[bold]Started a Celery worker[/], {worker.name}")
            run_example("asyncio_program.py", environment)
            run_example("twisted_send_task.py", environment)
            run_example("celery_client.py", environment)
            console.rule(f"a burst of {count} tasks")
            asyncio.run(burst(count))
            console.rule()
    console.print("[bold]Stopped the worker and RabbitMQ; nothing is left running.[/]")


if __name__ == "__main__":
    main()
