"""Run the soak and print its accounting: ``python -m tests.soak --minutes 15 --seed 1``."""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import sys
import tempfile
from pathlib import Path

from bridgetask import Client

from ..fix_proxy import Proxy
from ..servers import RabbitMQ, Worker
from .account import Account, Footprint
from .harm import Harm
from .load import Load
from .tasks import app

#: Seconds; short, so that many dead connections are noticed in a short run.
HEARTBEAT = 2
#: Megabytes by which the process may grow, its own accounting included: 1 kB a task.
GROWTH = 40.0


async def soak(
    minutes: float, seed: int, proxy: Proxy, node: RabbitMQ, worker: Worker, executions: Path
) -> list[str]:
    """Run for so many minutes; print the accounting, and return what is wrong with it."""
    chance = random.Random(seed)
    account = Account()
    app.conf.broker_url = f"amqp://127.0.0.1:{proxy.port}//"
    async with Client(app, send_timeout=20, heartbeat=HEARTBEAT) as client:
        load = Load(client, account, chance)
        await load.run(3)
        await load.settled()
        before = Footprint.now()
        harm = Harm(proxy, node, worker, random.Random(seed), heartbeat=HEARTBEAT)
        await asyncio.gather(load.run(minutes * 60), harm.run(minutes * 60))
        proxy.heal()
        print(f"faults are over; {load.following} calls are still followed", flush=True)
        await load.settled()
        await asyncio.sleep(1)
        after = Footprint.now()
        session = client._session
        assert session is not None
        left = len(session.pending), session.backlog._count
    print("faults:", ", ".join(f"{n} {name}" for name, n in sorted(harm.done.items())))
    print(account.check(executions))
    print(f"before: {before}\nafter:  {after}")
    problems = account.problems
    if any(left):
        problems.append(f"left in the client: {left[0]} outcomes, {left[1]} messages")
    for name in ("tasks", "threads", "sockets"):
        if getattr(after, name) > getattr(before, name):
            problems.append(f"more {name} than before")
    if after.megabytes - before.megabytes > GROWTH + len(account.entries) / 1000:
        problems.append("memory grew")
    return problems


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--seed", type=int, default=random.randrange(1000))
    options = parser.parse_args()
    print(f"{options.minutes} minutes, seed {options.seed}", flush=True)
    # The faults are heard of all the time; only what bridgetask itself holds for an error counts.
    logging.basicConfig(level=logging.CRITICAL)
    with tempfile.TemporaryDirectory(prefix="bridgetask-soak-") as folder:
        executions = Path(folder) / "executions"
        with RabbitMQ() as node, Proxy(node.port) as proxy:
            environment = {
                "BRIDGETASK_TEST_BROKER": node.url(),
                "BRIDGETASK_SOAK_EXECUTIONS": str(executions),
            }
            with Worker(
                "tests.soak.tasks", environment=environment, name="soak", concurrency=4
            ) as worker:
                problems = asyncio.run(
                    soak(options.minutes, options.seed, proxy, node, worker, executions)
                )
    for problem in problems[:50]:
        print(f"WRONG: {problem}")
    print("all accounted for" if not problems else f"{len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
