"""The client: call Celery tasks from asyncio, and await their results."""

from __future__ import annotations

from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Collection,
    Iterable,
    Mapping,
    Sequence,
)
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from ..transports.plugs import Plugs, preload
from ..wire.app_view import app_itself
from ..wire.compression import DEFAULT_LIMIT
from .calls import Calls
from .control import Control
from .events import Events, capture_events
from .group import GroupResult
from .handle import OnCancel
from .map import map_calls
from .options import ClientOptions
from .result import AsyncResult
from .sessions import Sessions

if TYPE_CHECKING:
    from celery import Celery, Task
    from celery.canvas import Signature, group
    from celery.events.state import State

__all__ = ["Client", "calls_of"]

P = ParamSpec("P")
R = TypeVar("R")


class Client:
    """Calls the tasks of a Celery app without blocking the event loop.

    Making a client needs no running loop, so a module may hold one. It imports the libraries of
    the app's broker and backend, as far as the configuration is known, and connects to nothing. The
    client connects when it is first used, and belongs to the event loop that runs then. After that
    loop is closed, the next loop may use the client, and so may a forked process.

    .. code-block:: python

        async with Client(app) as client:
            assert await client.send_task("proj.add", args=(1, 2)) == 3

    :param app: the configured Celery app. It is not altered; its own blocking calls work on.
    :param send_timeout: seconds that sending may take in all: connecting, declaring, publishing,
        and the broker's confirm.
    :param close_timeout: seconds that :meth:`close` may take in all.
    :param on_cancel: what happens to a task when its last waiter is cancelled: None leaves it
        alone, ``"revoke"`` revokes it, ``"terminate"`` also kills the process that runs it. A call
        can override this.
    :param heartbeat: whole seconds of silence after which the connection is taken for dead and
        opened again; 0 for never. None takes the app's ``broker_heartbeat``, but at most 10.
    :param max_in_flight: how many messages may be published without the broker's confirm. Further
        messages wait, and so does their ``sent()``.
    :param max_queued: how many messages may wait for the broker's confirm in all. One call more
        raises :class:`bridgetask.errors.Overloaded`. The rest of a large group waits its turn.
    :param max_result_size: bytes that a result may have once it is decompressed, 256 MiB by
        default. A larger one fails with :class:`bridgetask.errors.ResultUndecodable`.
    :raises InvalidOption: an option can't be used.
    """

    def __init__(
        self,
        app: Celery,
        *,
        send_timeout: float = 30.0,
        close_timeout: float = 5.0,
        on_cancel: OnCancel = None,
        heartbeat: float | None = None,
        max_in_flight: int = 512,
        max_queued: int = 100_000,
        max_result_size: int = DEFAULT_LIMIT,
    ) -> None:
        options = ClientOptions(
            send_timeout=send_timeout,
            close_timeout=close_timeout,
            on_cancel=on_cancel,
            heartbeat=heartbeat,
            max_in_flight=max_in_flight,
            max_queued=max_queued,
            max_result_size=max_result_size,
        )
        #: The Celery app.
        self.app: Celery = app_itself(app)
        self._sessions = Sessions(self.app, options, self._plug)
        self._calls = Calls(self._sessions)
        #: Commands to workers, and questions.
        self.control: Control = self._calls.control
        preload(self.app)

    def _plug(self) -> Plugs:
        """Read the app's configuration. ``bridgetask.testing`` overrides this."""
        return Plugs.of(self.app, heartbeat=self._sessions.options.heartbeat)

    # Calling tasks.

    def send_task(
        self,
        name: str,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> AsyncResult[Any]:
        """Call a task by its name, as ``Celery.send_task`` does.

        Returns at once. Messages go out in the order of the calls.

        :param name: the task's name. It need not be registered here.
        :param args: the task's positional arguments.
        :param kwargs: the task's keyword arguments.
        :param options: the options of Celery's own ``send_task``, such as ``countdown``, ``eta``,
            ``expires``, ``queue``, ``priority``, ``serializer``, ``task_id``, ``headers``,
            ``link``, ``retry``, ``ignore_result`` ..., but not ``connection``, ``producer``,
            ``publisher`` and ``result_cls``; and ``on_cancel``.
        :raises InvalidOption: an argument or an option can't be used; nothing is sent.
        :raises Overloaded: ``max_queued`` messages wait for a confirm already; nothing is sent.
        :raises ClientClosed: the client was closed.
        :raises WrongEventLoop: the client belongs to another event loop, or none is running.
        """
        call = self._calls.send_task(self._sessions.running(), name, args, kwargs, options)
        call.start()
        handle: AsyncResult[Any] = call.handle
        return handle

    @overload
    def delay(self, task: group, /) -> GroupResult: ...  # type: ignore[overload-overlap]
    @overload
    def delay(
        self, task: Task[P, R] | Signature[R], /, *args: P.args, **kwargs: P.kwargs
    ) -> AsyncResult[R]: ...
    def delay(self, task: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call a task of the app, as ``Task.delay`` does: ``delay(add, 1, 2)``.

        Raises what :meth:`send_task` does.

        :param task: a task of the app, or a signature of one or several.
        :raises TypeError: the task does not take these arguments.
        """
        return self.apply_async(task, args, kwargs)

    @overload
    def apply_async(
        self,
        task: group,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> GroupResult: ...
    @overload
    def apply_async(
        self,
        task: Task[P, R] | Signature[R],
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> AsyncResult[R]: ...
    def apply_async(
        self,
        task: Any,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Any:
        """Call a task of the app or a signature, as their own ``apply_async`` does.

        Takes and raises what :meth:`send_task` does. With ``task_always_eager`` the task runs
        before this returns, as in Celery, and blocks the event loop.

        :param task: a task of the app, or a signature of one or several.
        :raises TypeError: the task does not take these arguments.
        """
        call = self._calls.apply_async(self._sessions.running(), task, args, kwargs, options)
        call.start()
        return call.handle

    def map(
        self,
        task: Task[Any, R] | Signature[R],
        iterable: Iterable[Any] | AsyncIterable[Any],
        *,
        limit: int = 100,
        ordered: bool = True,
        return_exceptions: bool = False,
        **options: Any,
    ) -> AsyncIterator[R]:
        """Call a task with each item of an iterable, and iterate over the values.

        .. code-block:: python

            async for page in client.map(fetch, urls, limit=20):
                ...

        Once the iteration is left or cancelled, no more tasks are called. Those in flight run on,
        unless ``on_cancel`` says otherwise. Unlike ``Task.map`` of Celery this calls one task for
        each item.

        :param task: a task of the app, or a signature, which takes an item as its argument.
        :param iterable: the items. It may be asynchronous, and is evaluated as far as needed.
        :param limit: how many calls may be in flight, or ended and waiting to be yielded.
        :param ordered: whether values come in the order of the items, or as tasks end.
        :param return_exceptions: whether to yield an exception in the place of the value, or to
            raise it.
        :param options: options of each call; see :meth:`send_task`.
        :raises InvalidOption: ``limit`` is not a positive number.
        :raises Exception: what :meth:`AsyncResult.get` raises.
        """
        return map_calls(
            lambda item: self.apply_async(task, (item,), **options),
            iterable,
            limit=limit,
            ordered=ordered,
            return_exceptions=return_exceptions,
        )

    def result(self, task_id: str) -> AsyncResult[Any]:
        """Return the handle of a task by its id.

        Where results are stored, as in Redis, any client can await the result of any task. A task
        that does not exist is pending for ever, as in Celery. By ``rpc://`` only the client that
        sent the task gets its result: for any other, awaiting the handle raises
        :class:`bridgetask.errors.ResultUnavailable` at once.

        :raises ClientClosed: the client was closed.
        :raises WrongEventLoop: the client belongs to another event loop, or none is running.
        """
        return self._calls.lookup(self._sessions.running()).by_id(task_id)

    async def group_result(self, group_id: str) -> GroupResult:
        """Return the handle of a group that was saved, by this client or by Celery's own.

        :raises ResultUnavailable: no group is saved under this id, or the result backend can't
            store any, as ``rpc://`` can't.
        :raises ResultUndecodable: the stored group can't be read.
        :raises BackendError: the result backend could not be asked.
        """
        return await self._calls.lookup(self._sessions.running()).stored_group(group_id)

    def events(
        self,
        types: Collection[str] | None = None,
        *,
        routing_key: str = "#",
        wakeup: bool = True,
        buffer_limit: int = 10_000,
        state: State | None = None,
    ) -> Events:
        """Return an iterator over the events that workers send; see :class:`Events`.

        Workers send events of tasks only with ``worker_send_task_events``, or after
        :meth:`Control.enable_events`.

        :param types: the types of the events to iterate over, such as ``"task-failed"``; None
            means all. The state sees every one.
        :param routing_key: which events the broker shall send: ``"worker.#"`` leaves out the
            events of tasks. One message has events of many tasks, so the broker can't select
            among those.
        :param wakeup: whether to make workers send a heartbeat event at once, as Celery does.
        :param buffer_limit: how many events may wait to be iterated over. Beyond that the oldest
            are dropped and counted, and a warning is logged.
        :param state: the ``celery.events.state.State`` to update, for example one with callbacks;
            None makes one. It is updated with each event before that is iterated over.
        :raises InvalidOption: an argument can't be used.
        """
        return capture_events(
            self.app,
            self._sessions.running,
            self.control.heartbeat,
            types,
            routing_key,
            wakeup,
            buffer_limit,
            state,
        )

    # Connecting and closing.

    async def connect(self) -> None:
        """Connect now, rather than with the first call, so that errors show early.

        Cancelling this harms nothing: the client connects when it is used.

        :raises BrokerUnreachable: no broker could be connected to, or not within ``send_timeout``.
        :raises Refused: the brokers turned the login or the virtual host down.
        :raises BackendError: results are in Redis, and it can't be used.
        :raises InvalidOption: the app's configuration can't be used.
        :raises ClientClosed: the client was closed, before or meanwhile.
        """
        await self._sessions.running().connect()

    async def close(self) -> None:
        """Send the queued messages, disconnect, and refuse further calls.

        Takes ``close_timeout`` seconds at most. Messages that are not sent by then fail, and so do
        all results that are still awaited, with :class:`bridgetask.errors.ClientClosed` or
        :class:`bridgetask.errors.Unconfirmed`. A warning in the log says how many. Cancelling this
        disconnects at once.

        :raises WrongEventLoop: the client belongs to another event loop that still runs.
        """
        await self._sessions.close()

    async def __aenter__(self) -> Client:
        """Connect, so that the block is entered only if the broker is there; else close."""
        try:
            await self.connect()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._sessions.closed

    def __repr__(self) -> str:
        return str(self._sessions)


def calls_of(client: Client) -> Calls:
    """Return the internal interface of a client, for front ends that build on it."""
    return client._calls
