"""Commands to workers, awaitable. Follows ``celery.app.control.Control``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeAlias

from ..errors import InvalidOption
from ..wire.control import check_own
from .inspect import Inspect

__all__ = ["Control"]

#: Runs a function on Celery's own control, and returns what that returns.
RunControl: TypeAlias = Callable[[Callable[[Any], Any]], Awaitable[Any]]

#: The reply of each worker, by its name; None where no replies were asked for.
WorkerReplies: TypeAlias = list[dict[str, Any]] | None


class Control:
    """Remote control of the workers.

    It is :attr:`bridgetask.Client.control`. Each method has the arguments of Celery's method of
    that name, in the same order, and returns the same. ``kwargs`` are those of :meth:`broadcast`.

    A command returns None once the broker has taken it, or the replies where ``reply=True``. Where
    no worker is up, it raises :class:`bridgetask.errors.NotRoutable`, since workers that start
    later do not receive it; but a method that asks for replies, as ``ping`` does, returns an empty
    list at once.

    Replies are returned as soon as all workers in ``destination`` have answered, or ``limit``
    workers have; otherwise after ``timeout`` seconds, since RabbitMQ does not tell how many
    workers there are.

    Each method raises what :meth:`broadcast` raises. If a method is cancelled, its command may or
    may not have been sent.
    """

    def __init__(self, run: RunControl) -> None:
        self._run = run

    def inspect(
        self,
        destination: Sequence[str] | None = None,
        timeout: float | None = 1.0,
        callback: Callable[[Any], object] | None = None,
        connection: None = None,
        app: None = None,
        limit: int | None = None,
        pattern: str | None = None,
        matcher: str | None = None,
    ) -> Inspect:
        """Return an :class:`bridgetask.Inspect`, which asks workers about themselves.

        The arguments are those of :meth:`broadcast`. They apply to all its questions.

        :raises InvalidOption: ``connection`` or ``app`` is given.
        """
        check_own("connection", connection)
        if app is not None:
            raise InvalidOption("app", "can't be used: it is that of the client")
        options = {
            "destination": destination,
            "timeout": timeout,
            "callback": callback,
            "limit": limit,
            "pattern": pattern,
            "matcher": matcher,
        }
        return Inspect(self._run, options)

    async def broadcast(
        self,
        command: str,
        arguments: Mapping[str, Any] | None = None,
        destination: Sequence[str] | None = None,
        connection: None = None,
        reply: bool = False,
        timeout: float | None = 1.0,
        limit: int | None = None,
        callback: Callable[[Any], object] | None = None,
        channel: None = None,
        pattern: str | None = None,
        matcher: str | None = None,
        **extra_kwargs: Any,
    ) -> WorkerReplies:
        """Send a command, one of Celery's or one that the workers define.

        :param command: the command's name.
        :param arguments: its arguments; ``extra_kwargs`` are added to them.
        :param destination: the names of the workers that shall run it; None means all.
        :param reply: whether to wait for replies, and return them.
        :param timeout: seconds to wait for replies, from when the broker has the command. None
            waits until there are as many as ``limit`` or ``destination`` says.
        :param limit: how many replies are enough.
        :param callback: called with each reply as it comes.
        :param pattern: the workers that shall run it, by their names; goes with ``matcher``.
        :param matcher: how to read the pattern: ``"glob"`` or ``"pcre"``.
        :param connection: not used, like ``channel``: the client has its own.
        :returns: ``[{"worker@host": its reply}, ...]``, or None without ``reply``.
        :raises NotRoutable: no worker is up, and no replies were asked for.
        :raises SendError: the command could not be sent.
        :raises ResultUnavailable: the connection was lost while replies were awaited.
        :raises InvalidOption: an argument can't be used; nothing was sent.
        """
        return await self._call(
            "broadcast",
            command,
            arguments,
            destination,
            connection,
            reply,
            timeout,
            limit,
            callback,
            channel,
            pattern=pattern,
            matcher=matcher,
            **extra_kwargs,
        )

    # Tasks.

    async def revoke(
        self,
        task_id: str | Sequence[str],
        destination: Sequence[str] | None = None,
        terminate: bool = False,
        signal: str | None = "SIGTERM",
        **kwargs: Any,
    ) -> WorkerReplies:
        """Tell workers not to run one task or several.

        Results of these tasks that are awaited here resolve as revoked at once. Those of tasks that
        are known to run already do so only with ``terminate``. Where ``destination`` or ``pattern``
        selects workers, results resolve when a worker reports the task as revoked.

        :param terminate: whether to kill the process that runs a task, too.
        :param signal: the signal for that.
        """
        return await self._call("revoke", task_id, destination, terminate, signal, **kwargs)

    async def revoke_by_stamped_headers(
        self,
        headers: Mapping[str, Any],
        destination: Sequence[str] | None = None,
        terminate: bool = False,
        signal: str | None = "SIGTERM",
        **kwargs: Any,
    ) -> WorkerReplies:
        """Tell workers not to run tasks that have one of these stamps.

        Results resolve as with :meth:`revoke`, where this client sent the stamped task itself.
        Workers send the later steps of a chain, whose results resolve when a worker discards them.

        :param headers: stamps and their values: ``{"stamp": "value"}``, or a list of values.
        :param terminate: whether to kill the processes that run such tasks, too.
        :param signal: the signal for that.
        """
        return await self._call(
            "revoke_by_stamped_headers", headers, destination, terminate, signal, **kwargs
        )

    async def terminate(
        self,
        task_id: str | Sequence[str],
        destination: Sequence[str] | None = None,
        signal: str | None = "SIGTERM",
        **kwargs: Any,
    ) -> WorkerReplies:
        """Revoke tasks, and kill the processes that run them."""
        return await self._call("terminate", task_id, destination, signal, **kwargs)

    async def rate_limit(
        self,
        task_name: str,
        rate_limit: float | str,
        destination: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> WorkerReplies:
        """Limit how often workers start a task.

        :param task_name: the task's name.
        :param rate_limit: tasks a second, or such as ``"100/m"``; 0 for no limit.
        """
        return await self._call("rate_limit", task_name, rate_limit, destination, **kwargs)

    async def time_limit(
        self,
        task_name: str,
        soft: float | None = None,
        hard: float | None = None,
        destination: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> WorkerReplies:
        """Set the time limits of a task, in seconds.

        :param task_name: the task's name.
        :param soft: when the task gets ``SoftTimeLimitExceeded``.
        :param hard: when the process that runs it is killed.
        """
        return await self._call("time_limit", task_name, soft, hard, destination, **kwargs)

    async def purge(self, connection: None = None) -> int:
        """Discard the tasks that wait in the app's queues; return how many there were.

        Results of these tasks that are awaited will not come.
        """
        purged: int = await self._run(lambda control: control.purge(connection))
        return purged

    async def discard_all(self, connection: None = None) -> int:
        """Do what :meth:`purge` does."""
        return await self.purge(connection)

    # Workers.

    async def ping(
        self, destination: Sequence[str] | None = None, timeout: float | None = 1.0, **kwargs: Any
    ) -> list[dict[str, Any]]:
        """Ask workers for a sign of life.

        :param timeout: seconds to wait for replies.
        :returns: ``[{"worker@host": {"ok": "pong"}}, ...]``; empty if none came in time.
        """
        return await self._call("ping", destination, timeout, **kwargs) or []

    async def add_consumer(
        self,
        queue: str,
        exchange: str | None = None,
        exchange_type: str = "direct",
        routing_key: str | None = None,
        options: Mapping[str, Any] | None = None,
        destination: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> WorkerReplies:
        """Tell workers to consume one more queue.

        :param options: further arguments of ``kombu.Queue.from_dict``.
        """
        return await self._call(
            *("add_consumer", queue, exchange, exchange_type, routing_key, options, destination),
            **kwargs,
        )

    async def cancel_consumer(
        self, queue: str, destination: Sequence[str] | None = None, **kwargs: Any
    ) -> WorkerReplies:
        """Tell workers to stop consuming a queue."""
        return await self._call("cancel_consumer", queue, destination, **kwargs)

    async def enable_events(
        self, destination: Sequence[str] | None = None, **kwargs: Any
    ) -> WorkerReplies:
        """Tell workers to send events about tasks."""
        return await self._call("enable_events", destination, **kwargs)

    async def disable_events(
        self, destination: Sequence[str] | None = None, **kwargs: Any
    ) -> WorkerReplies:
        """Tell workers to send no events about tasks."""
        return await self._call("disable_events", destination, **kwargs)

    async def pool_grow(
        self, n: int = 1, destination: Sequence[str] | None = None, **kwargs: Any
    ) -> WorkerReplies:
        """Tell workers to add ``n`` processes to their pools."""
        return await self._call("pool_grow", n, destination, **kwargs)

    async def pool_shrink(
        self, n: int = 1, destination: Sequence[str] | None = None, **kwargs: Any
    ) -> WorkerReplies:
        """Tell workers to take ``n`` processes from their pools."""
        return await self._call("pool_shrink", n, destination, **kwargs)

    async def pool_restart(
        self,
        modules: Sequence[str] | None = None,
        reload: bool = False,
        reloader: Any = None,
        destination: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> WorkerReplies:
        """Tell workers to restart their pools, which needs ``worker_pool_restarts``.

        :param modules: the names of modules to import first.
        :param reload: whether to import modules again that are imported already.
        :param reloader: a function that does that; it must be serialisable.
        """
        return await self._call("pool_restart", modules, reload, reloader, destination, **kwargs)

    async def autoscale(
        self, max: int, min: int, destination: Sequence[str] | None = None, **kwargs: Any
    ) -> WorkerReplies:
        """Set the limits within which the pools of workers grow and shrink by themselves.

        :param max: the largest number of processes.
        :param min: the smallest number of processes.
        """
        return await self._call("autoscale", max, min, destination, **kwargs)

    async def shutdown(
        self, destination: Sequence[str] | None = None, **kwargs: Any
    ) -> WorkerReplies:
        """Tell workers to end, once the tasks that they run have ended."""
        return await self._call("shutdown", destination, **kwargs)

    async def heartbeat(
        self, destination: Sequence[str] | None = None, **kwargs: Any
    ) -> WorkerReplies:
        """Tell workers to send a heartbeat event at once."""
        return await self._call("heartbeat", destination, **kwargs)

    async def election(
        self, id: str, topic: str, action: Any = None, connection: None = None
    ) -> WorkerReplies:
        """Make workers elect one of them, which then does ``action``. For workers' extensions."""
        return await self._call("election", id, topic, action, connection)

    # Within.

    async def _call(self, name: str, *args: Any, **kwargs: Any) -> WorkerReplies:
        """Call a method of Celery's control."""
        if bool(kwargs.get("pattern")) != bool(kwargs.get("matcher")):
            # With one of them, Celery would send it to all workers.
            raise InvalidOption("pattern", "and matcher must be given together")
        replies: WorkerReplies = await self._run(
            lambda control: getattr(control, name)(*args, **kwargs)
        )
        return replies
