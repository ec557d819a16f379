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

    Made by :attr:`bridgetask.Client.control`. Every method takes what Celery's takes, in the same
    order, and returns what Celery's returns. ``kwargs`` are those of :meth:`broadcast`.

    A command returns None once the broker has taken it, or the replies where ``reply=True``.
    Where no worker is up to hear it, it raises :class:`bridgetask.errors.NotRoutable`: workers
    that start later will not know of it. What asks for replies, as ``ping`` does, returns an empty
    list at once instead.

    Replies are returned as soon as every worker in ``destination`` has answered, or ``limit``
    have; else after ``timeout`` seconds, since RabbitMQ does not tell how many workers there are.

    Cancelling a method leaves it open whether its command goes out, and each raises what
    :meth:`broadcast` raises.
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
        """Return what asks workers about themselves; see :class:`bridgetask.Inspect`.

        The arguments are those of :meth:`broadcast`, for all questions that are asked by it.
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
        """Send any command, those that the workers define themselves included.

        :param command: the command's name.
        :param arguments: its arguments; ``extra_kwargs`` are added to them.
        :param destination: the names of the workers that shall obey; None means all.
        :param reply: whether to wait for replies, and return them.
        :param timeout: seconds to wait for replies, from when the broker has the command. None
            waits until there are as many as ``limit`` or ``destination`` says.
        :param limit: how many replies are enough.
        :param callback: called with each reply as it comes.
        :param pattern: which workers shall obey, by their names; goes with ``matcher``.
        :param matcher: how to read the pattern: ``"glob"`` or ``"pcre"``.
        :param connection: not used, like ``channel``: the client has its own.
        :returns: ``[{"worker@host": what it said}, ...]``, or None without ``reply``.
        :raises NotRoutable: no worker is up to hear the command, and no replies were asked for.
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

        Results of these tasks that are awaited here resolve as revoked at once, except for tasks
        that are known to run already, unless ``terminate``. Where only some workers are told, by
        ``destination`` or ``pattern``, it is left to them to report the task as revoked.

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
        """Tell workers not to run tasks that are stamped so: ``{"stamp": "value"}``, or a list.

        Results resolve as with :meth:`revoke`, where this client sent the stamped task itself.
        The later steps of a chain are sent by workers, and resolve when one discards them.
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
        """Ask workers whether they are there.

        :param timeout: seconds to wait for replies.
        :returns: ``[{"worker@host": {"ok": "pong"}}, ...]``; empty if nobody answered in time.
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

        :param options: more of what ``kombu.Queue.from_dict`` takes.
        """
        return await self._call(
            *("add_consumer", queue, exchange, exchange_type, routing_key, options, destination),
            **kwargs,
        )

    async def cancel_consumer(
        self, queue: str, destination: Sequence[str] | None = None, **kwargs: Any
    ) -> WorkerReplies:
        """Tell workers to consume a queue no longer."""
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

        :param modules: what to import first.
        :param reload: whether to import again what is imported already.
        :param reloader: what does that; it must be something that can be serialised.
        """
        return await self._call("pool_restart", modules, reload, reloader, destination, **kwargs)

    async def autoscale(
        self, max: int, min: int, destination: Sequence[str] | None = None, **kwargs: Any
    ) -> WorkerReplies:
        """Set between how many processes the pools of workers grow and shrink by themselves.

        :param max: how many there may be.
        :param min: how many there always are.
        """
        return await self._call("autoscale", max, min, destination, **kwargs)

    async def shutdown(
        self, destination: Sequence[str] | None = None, **kwargs: Any
    ) -> WorkerReplies:
        """Tell workers to end, once the tasks that they run have."""
        return await self._call("shutdown", destination, **kwargs)

    async def heartbeat(
        self, destination: Sequence[str] | None = None, **kwargs: Any
    ) -> WorkerReplies:
        """Tell workers to send a heartbeat event at once."""
        return await self._call("heartbeat", destination, **kwargs)

    async def election(
        self, id: str, topic: str, action: Any = None, connection: None = None
    ) -> WorkerReplies:
        """Have workers elect one of them, which then does ``action``. For workers' extensions."""
        return await self._call("election", id, topic, action, connection)

    # Within.

    async def _call(self, name: str, *args: Any, **kwargs: Any) -> WorkerReplies:
        """Call a method of Celery's control."""
        if bool(kwargs.get("pattern")) != bool(kwargs.get("matcher")):
            # Celery would send it to all workers.
            raise InvalidOption("pattern", "and matcher must be given together")
        replies: WorkerReplies = await self._run(
            lambda control: getattr(control, name)(*args, **kwargs)
        )
        return replies
