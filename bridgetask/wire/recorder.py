"""Celery's own code builds the messages of a call. They are recorded, and sent later."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

import celery.app.task
from celery import Task
from celery.canvas import Signature
from celery.local import Proxy, maybe_evaluate
from kombu import Connection, Producer

from ..errors import InvalidOption
from .app_view import MakeBackend, app_view
from .callback_address import CallbackAddress
from .canvas import AT_ONCE, SentResult, apply_in_steps, bind, is_large
from .message import OutgoingMessage, StoreWrite
from .options import check_call, raise_naming_the_option
from .producer import RecordingChannel, RecordingProducer
from .tape import Tape
from .templates import Templates

if TYPE_CHECKING:
    from celery import Celery

__all__ = ["RecordedCall", "Recorder", "is_task"]

T = TypeVar("T")

_CALL_DECIDES = hasattr(celery.app.task, "get_actual_ignore_result")
#: Seconds after which the members of a large group that are made so far are sent.
_LONG = 0.05


def is_task(candidate: object) -> bool:
    """Tell whether this is a Celery task, or the proxy of one, which is not evaluated."""
    return issubclass(type(candidate), Proxy) or isinstance(candidate, Task)


@dataclass(slots=True)
class RecordedCall:
    """A call of a task or a signature: its messages, and Celery's result."""

    name: str
    #: Celery's result of the whole call, with its parents and members.
    result: Any
    messages: list[OutgoingMessage]
    #: The option ``ignore_result`` of the call; None if the call did not have it.
    ignore_result: bool | None = None
    #: Whether the option ``reply_to`` sends the result to somebody else.
    reply_elsewhere: bool = False
    #: Celery's result of the group whose members are called in steps; None in other calls.
    growing: Any = None
    #: The steps, each of which calls one of the members that are left.
    rest: Iterator[SentResult] | None = None
    #: Whether members take long to make, so that each should be sent before the next is made.
    slow: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)


class Recorder:
    """Builds calls for one app. Safe to use from any thread, and from a signal's receiver.

    :param app: the Celery app, which is not altered.
    :param reply_to: the address that workers shall send results to.
    :param connection: a kombu connection like the app's, which nothing connects.
    :param channel: what messages and declarations are recorded on.
    :param make_backend: makes what stands for the app's result backend.
    :param address_callbacks: whether results of linked tasks shall come to ``reply_to``, too.
    :param clock: tells the time in seconds, to templates.
    """

    def __init__(
        self,
        app: Celery,
        reply_to: str,
        *,
        connection: Connection,
        channel: RecordingChannel,
        make_backend: MakeBackend,
        address_callbacks: bool,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.app = app
        self.reply_to = reply_to
        #: What is recorded; others may add to it, while a recording is open.
        self.tape: Tape = Tape()
        #: What Celery's and kombu's code publishes by.
        self.producer: RecordingProducer = RecordingProducer(connection, channel, self.tape.add)
        self._callback_address = CallbackAddress(reply_to if address_callbacks else None)
        self._view = app_view(
            app,
            reply_to,
            tape=self.tape,
            producer=self.producer,
            callback_address=self._callback_address,
            make_backend=make_backend,
            clock=clock,
        )
        self._send_task = self._view.app.send_task
        #: Calls that are made without Celery's code.
        self.templates: Templates = self._view.templates
        #: The view's backend: Celery's own for Redis, but for its I/O.
        self.backend: Any = self._view.backend

    @property
    def links_used(self) -> bool:
        """Whether any call had linked tasks, whose results come here as well."""
        return self._callback_address.was_written

    @property
    def sending_parts(self) -> dict[str, Any]:
        """The attributes of an app that it sends by, with ones that record in their place."""
        names = ("amqp", "producer_or_acquire", "producer_pool")
        return {name: getattr(self._view.app, name) for name in names}

    def send_task(self, name: str, args: Any, kwargs: Any, options: dict[str, Any]) -> RecordedCall:
        """Record what ``Celery.send_task`` does.

        :raises InvalidOption: naming the argument or the option that can't be used.
        """
        if not isinstance(name, str):
            raise InvalidOption("name", f"must be a string, not {type(name).__name__}")
        return self._record(name, self._send_task, (name, args, kwargs), options)

    def apply_async(
        self, task: Any, args: Any, kwargs: Any, options: dict[str, Any]
    ) -> RecordedCall:
        """Record what ``Task.apply_async`` or ``Signature.apply_async`` does.

        :raises TypeError: the task does not take these arguments.
        :raises InvalidOption: naming the argument or the option that can't be used.
        """
        task = maybe_evaluate(task)
        if isinstance(task, Task):
            apply = self._view.tasks.of(task).apply_async
            return self._record(task.name, apply, (args, kwargs), options)
        if isinstance(task, Signature):
            began = monotonic()
            in_steps = not self.app.conf.task_always_eager and is_large(task)
            signature = bind(task, self._view.app, lazily=in_steps)
            if in_steps:
                return self._record_in_steps(signature, args, kwargs, options, began)
            return self._record(signature.name, signature.apply_async, (args, kwargs), options)
        raise InvalidOption("task", f"must be a Celery task or signature, not {task!r}")

    def record_more(
        self, call: RecordedCall, members: int, began: float | None = None
    ) -> tuple[list[Any], list[Any]]:
        """Record the next members of a large group; return their results, and their messages.

        An empty list of results means that there are no more members. Fewer than asked for are
        returned if it takes long to make them.

        :param members: how many to record at most.
        :param began: the time by ``time.monotonic`` when the first one was begun, if not now.
        :raises InvalidOption: naming what can't be used.
        :raises Exception: whatever else Celery raises for a member that can't be sent.
        """
        until = (monotonic() if began is None else began) + _LONG

        def take() -> list[Any]:
            results: list[Any] = []
            for result in islice(call.rest or (), members):
                results.append(result)
                call.slow = monotonic() > until
                if call.slow:
                    break
            return results

        with self.tape.recording() as recording:
            results = _naming_options(call.options, take)
        return results, recording.messages

    def record(self, publish: Callable[[Producer], object]) -> list[OutgoingMessage]:
        """Return the messages that ``publish`` sends through the producer it is given."""
        with self.tape.recording() as recording:
            publish(self.producer)
        return recording.messages

    def record_writes(self, write: Callable[[Any], object]) -> tuple[StoreWrite, ...]:
        """Return the writes that ``write`` does with the backend that it is given."""
        with self.tape.recording() as recording:
            write(self.backend)
        return tuple(recording.writes)

    def ignores_result(self, call: RecordedCall, result: Any, message: Any) -> bool:
        """Tell whether the worker will send no result.

        If the call does not say, the worker's task decides (``app/trace.py``). Then this goes by
        the task of that name here, or by the setting. Up to Celery 5.5 a call can't ask for a
        result that the task ignores.

        :param result: Celery's result of the call, or of a part of it.
        :param message: the message of that part, or None if a worker will send it.
        """
        headers = message.properties.get("headers", {}) if message is not None else {}
        said = call.ignore_result if result is call.result else None
        said = headers.get("ignore_result") if said is None else said
        if said or (said is not None and _CALL_DECIDES):
            return bool(said)
        name = headers.get("task") or getattr(result, "task_name", None) or call.name
        task = self.app._tasks.get(name)
        return bool(task.ignore_result if task else self._view.app.conf.task_ignore_result)

    def _record(
        self, name: str, call: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]
    ) -> RecordedCall:
        check_call(args[-2], args[-1], options)
        with self.tape.recording() as recording:
            result = _naming_options(options, call, *args, **options)
        if result is None:
            raise InvalidOption("task", f"is an empty {name}: there is nothing to call")
        return self._recorded(name, result, recording.messages, options)

    def _record_in_steps(
        self,
        signature: Signature[Any],
        args: Any,
        kwargs: Any,
        options: dict[str, Any],
        began: float,
    ) -> RecordedCall:
        check_call(args, kwargs, options)
        with self.tape.recording():
            result, growing, rest = _naming_options(
                options, apply_in_steps, signature, args, kwargs, dict(options)
            )
        call = self._recorded(signature.name, result, [], options)
        call.growing, call.rest, call.options = growing, rest, options
        results, call.messages = self.record_more(call, AT_ONCE, began)
        if len(results) < AT_ONCE and not call.slow:  # those were all
            call.growing = call.rest = None
        return call

    def _recorded(
        self, name: str, result: Any, messages: list[OutgoingMessage], options: dict[str, Any]
    ) -> RecordedCall:
        reply_to = options.get("reply_to")
        ignored = getattr(result, "ignored", None)
        return RecordedCall(
            name=name,
            result=result,
            messages=messages,
            ignore_result=True if ignored else options.get("ignore_result"),
            reply_elsewhere=reply_to is not None and reply_to != self.reply_to,
        )


def _naming_options(
    options: Mapping[str, Any], call: Callable[..., T], /, *args: Any, **kwargs: Any
) -> T:
    """Return what ``call`` returns.

    :raises InvalidOption: an error in it is due to one of the options.
    """
    try:
        return call(*args, **kwargs)
    except Exception as error:
        raise_naming_the_option(error, options)
        raise
