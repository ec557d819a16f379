"""The clients that are compared, each in a process of its own.

``python -m benchmarks.clients NAME URL BACKEND`` reads workloads from standard input, a line of
JSON each, and writes the figures of each as a line of JSON.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.util import find_spec

__all__ = ["CLIENTS", "Contender"]

_ALL = ("rpc", "redis")


@dataclass(frozen=True)
class Contender:
    """A client, and how it takes part.

    :param made_by: the module and class of what calls the task.
    :param runs_on: the event loop, ``blocking`` if it needs none.
    :param backends: the result backends that it can take results from.
    :param skips: workloads that it can't do, or where it would tell nothing new.
    :param imports: what a program that uses it imports.
    :param confirms: whether it waits for the broker's confirm.
    :param holds: whether it can have any number of calls in flight.
    :param limit: how many calls in flight it survives.
    :param remark: what it can't do, for the documentation.
    :param environment: added to its process's environment.
    """

    made_by: str
    runs_on: str
    imports: str
    backends: Sequence[str] = _ALL
    skips: Sequence[str] = ()
    confirms: bool = True
    holds: bool = True
    limit: int = 10_000
    remark: str = ""
    environment: tuple[tuple[str, str], ...] = ()

    @property
    def installed(self) -> bool:
        """Whether what it needs is there."""
        names = [each.strip().partition(".")[0] for each in self.imports.split(",")]
        return all(find_spec(name) is not None for name in names)

    def with_environment(self, **variables: str) -> Contender:
        """Return the same client, with variables added to its process's environment."""
        return replace(self, environment=(*self.environment, *variables.items()))

    def serve(self, url: str, backend: str) -> None:
        """Do what standard input says."""
        from . import serving

        module, _, name = self.made_by.partition(":")
        client = getattr(import_module(f".{module}", __package__), name)(url, backend)
        getattr(serving, "serve_" + self.runs_on)(client)


_THREADS = (
    "A call holds a thread from its sending until its result: as many at a time as the pool has."
)
_NO_GROUPS = ("groups", "pending")

CLIENTS: dict[str, Contender] = {
    "bridgetask": Contender("asyncio_clients:Bridgetask", "asyncio", "bridgetask"),
    "bridgetask, uvloop": Contender(
        "asyncio_clients:Bridgetask", "uvloop", "bridgetask, uvloop", skips=("pending",)
    ),
    "bridgetask, Twisted on asyncio": Contender(
        "twisted_clients:Bridgetask", "twisted_on_asyncio", "bridgetask.twisted_compat"
    ),
    "bridgetask, Twisted": Contender(
        "twisted_clients:Bridgetask",
        "twisted",
        "bridgetask.twisted_compat, twisted.internet.reactor",
        skips=("pending",),
        remark="Twisted's default reactor: the client runs on one thread beside it.",
    ),
    "bridgetask, plain aio-pika": Contender(
        "asyncio_clients:Bridgetask",
        "asyncio",
        "bridgetask",
        skips=("pending",),
        remark="Messages go through aiormq's own methods (`BRIDGETASK_AMQP=plain`).",
        environment=(("BRIDGETASK_AMQP", "plain"),),
    ),
    "celery": Contender(
        "blocking_clients:CeleryClient",
        "blocking",
        "celery",
        confirms=False,
        skips=("flood", "steady"),
        remark="Blocks: nothing else runs meanwhile, so there is no stall to measure.",
    ),
    "celery, asyncio.to_thread": Contender(
        "asyncio_clients:CeleryInThreads",
        "asyncio",
        "celery",
        confirms=False,
        holds=False,
        skips=("pending",),
        remark=_THREADS,
    ),
    "celery, deferToThread": Contender(
        "twisted_clients:CeleryInThreads",
        "twisted",
        "celery, twisted.internet.reactor",
        confirms=False,
        holds=False,
        skips=("pending",),
        remark=_THREADS,
    ),
    "50 ms poller": Contender(
        "twisted_clients:Poller",
        "twisted",
        "celery, twisted.internet.reactor",
        backends=("redis",),
        confirms=False,
        skips=("pending",),
        remark="As txCelery does it, which is not on PyPI and does not run on Celery 5: sends on "
        "the reactor's thread and asks for each result every 50 ms. By rpc:// each such question "
        "reads the reply queue for all.",
    ),
    "aio-celery": Contender(
        "asyncio_clients:AioCelery",
        "asyncio",
        "aio_celery",
        backends=("redis",),
        skips=_NO_GROUPS,
        remark="Results from Redis alone, asked for every 0.5 s; no groups; takes STARTED for the "
        "result, and does not raise what a task raised.",
    ),
    "acelery": Contender(
        "asyncio_clients:Acelery",
        "asyncio",
        "acelery",
        backends=("redis",),
        confirms=False,
        limit=50,
        skips=("pending", "flood"),
        remark="Results from Redis alone, over a connection for each, of which redis-py refuses "
        "more than some 50 at a time; sends in threads; gives up on a task that has not begun "
        "after about 15 s.",
    ),
    "faststream-celery": Contender(
        "asyncio_clients:FaststreamCelery",
        "asyncio",
        "faststream_celery",
        confirms=False,
        holds=False,
        skips=_NO_GROUPS,
        remark="By rpc:// a connection, a queue and a thread for each call, 40 at a time; from "
        "Redis asked for every 50 ms; no groups.",
    ),
    "plain aio-pika": Contender(
        "asyncio_clients:PlainAioPika",
        "asyncio",
        "aio_pika",
        backends=("rpc",),
        skips=("groups",),
        remark="What one would write by hand: Celery's builder of messages, `publish`, one "
        "consumer of replies. No routing, no signals, results as JSON has them.",
    ),
    "floor": Contender(
        "asyncio_clients:FloorClient",
        "asyncio",
        "asyncio",
        backends=("rpc",),
        skips=("groups",),
        remark="Not a client: what RabbitMQ and the event loop cost. Frames encoded beforehand "
        "but for ids and arguments, results not even decoded.",
    ),
    "frames": Contender(
        "blocking_clients:Frames",
        "blocking",
        "socket",
        backends=("rpc",),
        confirms=False,
        skips=(
            *("send_one_by_one", "one_by_one", "burst", "flood", "steady", "large"),
            *("groups", "pending"),
        ),
        remark="Not a client: the same frames again and again, as fast as the broker takes them.",
    ),
}
