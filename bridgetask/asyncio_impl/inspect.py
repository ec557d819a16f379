"""Questions to workers, awaitable. Follows ``celery.app.control.Inspect``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

__all__ = ["Inspect"]

#: The answer of each worker, by its name; None where none answered.
ByWorker = dict[str, Any] | None


class Inspect:
    """Asks workers about themselves.

    Made by :meth:`bridgetask.Control.inspect`, whose arguments say which workers to ask, and how
    long to wait. Each method returns ``{"worker@host": its answer, ...}``, or None if none answered
    in time; at once if no worker is up. Each raises what :meth:`bridgetask.Control.broadcast`
    raises. If a method is cancelled, its question may or may not have been sent.
    """

    def __init__(
        self, run: Callable[[Callable[[Any], Any]], Awaitable[Any]], options: Mapping[str, Any]
    ) -> None:
        self._run = run
        self._options = options

    async def active(self, safe: bool | None = None) -> ByWorker:
        """Return the tasks that are running."""
        return await self._call("active", safe)

    async def scheduled(self, safe: bool | None = None) -> ByWorker:
        """Return the tasks that wait for their ``eta``."""
        return await self._call("scheduled", safe)

    async def reserved(self, safe: bool | None = None) -> ByWorker:
        """Return the tasks that workers have taken and not yet started."""
        return await self._call("reserved", safe)

    async def revoked(self) -> ByWorker:
        """Return the ids of the tasks that were revoked."""
        return await self._call("revoked")

    async def query_task(self, *ids: Any) -> ByWorker:
        """Return the tasks that workers know among those with these ids."""
        return await self._call("query_task", *ids)

    async def registered(self, *taskinfoitems: str) -> ByWorker:
        """Return the tasks that workers can run.

        :param taskinfoitems: attributes of the tasks to show, such as ``"rate_limit"``.
        """
        return await self._call("registered", *taskinfoitems)

    async def registered_tasks(self, *taskinfoitems: str) -> ByWorker:
        """Do what :meth:`registered` does."""
        return await self._call("registered_tasks", *taskinfoitems)

    async def ping(self, destination: Any = None) -> ByWorker:
        """Ask workers for a sign of life.

        :param destination: the names of the workers to ask this time.
        """
        return await self._call("ping", destination)

    async def stats(self) -> ByWorker:
        """Return figures of the workers: processes, uptime, use of memory ..."""
        return await self._call("stats")

    async def report(self) -> ByWorker:
        """Return the versions and settings that workers run with, as text."""
        return await self._call("report")

    async def conf(self, with_defaults: bool = False) -> ByWorker:
        """Return the configuration of workers.

        :param with_defaults: whether to show settings that have their default values.
        """
        return await self._call("conf", with_defaults)

    async def active_queues(self) -> ByWorker:
        """Return the queues that workers consume."""
        return await self._call("active_queues")

    async def clock(self) -> ByWorker:
        """Return the logical clocks of workers."""
        return await self._call("clock")

    async def hello(self, from_node: str, revoked: Any = None) -> ByWorker:
        """Exchange revoked tasks with workers, as a worker does that starts.

        :param from_node: the name to do that under. A worker of this name does not answer.
        :param revoked: revoked tasks to tell them of.
        """
        return await self._call("hello", from_node, revoked)

    async def memsample(self) -> ByWorker:
        """Make workers take a sample of their memory, which needs psutil there."""
        return await self._call("memsample")

    async def memdump(self, samples: int = 10) -> ByWorker:
        """Return the samples of memory that workers have taken.

        :param samples: how many to return at most.
        """
        return await self._call("memdump", samples)

    async def objgraph(self, type: str = "Request", n: int = 200, max_depth: int = 10) -> ByWorker:
        """Make workers draw a graph of uncollected objects, which needs objgraph there.

        :param type: the class of the objects to draw.
        :param n: how many to draw at most.
        :param max_depth: how many references to follow from each.
        """
        return await self._call("objgraph", type, n, max_depth)

    async def _call(self, name: str, *args: Any) -> ByWorker:
        """Call a method of Celery's Inspect, a new one each time, since ``ping`` changes it."""

        def call(control: Any) -> Any:
            return getattr(control.inspect(app=control.app, **self._options), name)(*args)

        answers: ByWorker = await self._run(call)
        return answers
