"""Run the soak and print its accounting: ``python -m tests.soak --minutes 15 --seed 1``."""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bridgetask import Client

from ..fix_proxy import Proxy
from ..fix_rabbitmq import make_app
from ..redis_servers import Redis
from ..servers import RabbitMQ, Worker
from .account import Account, Footprint
from .harm import Harm, Victims
from .load import Load
from .tasks import app

#: Seconds; short, so that many dead connections are noticed in a short run.
HEARTBEAT = 2
#: The queues of the worker whose results come by rpc:// and of the one that stores them in Redis.
RPC_QUEUE, REDIS_QUEUE = "celery", "redis"
#: Megabytes by which the process may grow, its own accounting included: 1 kB a task.
GROWTH = 40.0


async def soak(minutes: float, seed: int, victims: Victims, executions: Path) -> list[str]:
    """Run for so many minutes; print the accounting, and return what is wrong with it."""
    chance = random.Random(seed)
    account = Account()
    app.conf.broker_url = f"amqp://127.0.0.1:{victims.proxy.port}//"
    app.conf.task_default_queue = RPC_QUEUE
    stored = make_app(
        "soak-redis",
        app.conf.broker_url,
        f"redis://127.0.0.1:{victims.redis_proxy.port}",
        task_default_queue=REDIS_QUEUE,
        redis_socket_timeout=HEARTBEAT,
        redis_socket_connect_timeout=HEARTBEAT,
        redis_backend_health_check_interval=HEARTBEAT,
    )
    async with (
        Client(app, send_timeout=20, heartbeat=HEARTBEAT) as by_rpc,
        Client(stored, send_timeout=20, heartbeat=HEARTBEAT) as by_redis,
    ):
        load = Load({"rpc": (by_rpc, 3), "redis": (by_redis, 1)}, account, chance)

        async def over(fault: str) -> None:
            account.recoveries.setdefault(fault, []).append(await load.recovered())

        await load.run(3)
        await load.settled()
        before = Footprint.now()
        harm = Harm(victims, random.Random(seed), over, heartbeat=HEARTBEAT)
        await asyncio.gather(load.run(minutes * 60), harm.run(minutes * 60))
        victims.proxy.heal()
        victims.redis_proxy.heal()
        print(f"faults are over; {load.following} calls are still followed", flush=True)
        await load.settled()
        await asyncio.sleep(1)
        after = Footprint.now()  # which collects garbage; what follows from that takes a turn
        await asyncio.sleep(0.1)
        left = [0, 0, 0]
        for client in (by_rpc, by_redis):
            session: Any = client._sessions.current
            left[0] += len(session.pending)
            left[1] += session.backlog._count
            left[2] += len(getattr(session._results, "_watches", ()))
    print("faults:", ", ".join(f"{n} {name}" for name, n in sorted(harm.done.items())))
    print(account.check(executions))
    print(f"before: {before}\nafter:  {after}")
    problems = account.problems
    if any(left):
        problems.append("left in the clients: {} outcomes, {} messages, {} watches".format(*left))
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
        with ExitStack() as stack:
            node = stack.enter_context(RabbitMQ())
            # A result that Redis has taken must survive that it is killed.
            redis = stack.enter_context(
                Redis(config={"appendonly": "yes", "appendfsync": "always"})
            )
            proxies = [
                stack.enter_context(Proxy(node.port)),
                stack.enter_context(Proxy(redis.port, protocol="redis")),
            ]
            environment = {
                "BRIDGETASK_TEST_BROKER": node.url(),
                "BRIDGETASK_SOAK_EXECUTIONS": str(executions),
            }
            workers = [
                Worker(
                    "tests.soak.tasks",
                    environment={
                        **environment,
                        "BRIDGETASK_TEST_BACKEND": backend,
                        "BRIDGETASK_TEST_QUEUE": queue,
                    },
                    name=f"soak-{queue}",
                    concurrency=concurrency,
                )
                for queue, backend, concurrency in (
                    (RPC_QUEUE, "rpc://", 3),
                    (REDIS_QUEUE, redis.url(), 2),
                )
            ]
            for worker in workers:
                stack.enter_context(worker)
            victims = Victims(node, proxies[0], redis, proxies[1], workers)
            problems = asyncio.run(soak(options.minutes, options.seed, victims, executions))
    for problem in problems[:50]:
        print(f"WRONG: {problem}")
    print("all accounted for" if not problems else f"{len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
