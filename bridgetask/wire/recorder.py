"""Celery's own code builds the messages of a call, which are recorded in place of being sent."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

import celery.app.task
from celery import Task
from celery.canvas import Signature
from celery.local import Proxy, maybe_evaluate
from kombu import Producer

from ..errors import InvalidOption
from .app_view import app_view
from .backend import recording_backend
from .callback_address import CallbackAddress
from .canvas import AT_ONCE, SentResult, apply_in_steps, bind, is_large
from .message import OutgoingMessage, StoreWrite
from .options import check_call, raise_naming_the_option
from .producer import RecordingProducer
from .tape import Tape
from .templates import Templates

if TYPE_CHECKING:
    from celery import Celery

__all__ = ["RecordedCall", "Recorder", "is_task"]

T = TypeVar("T")

_CALL_DECIDES = hasattr(celery.app.task, "get_actual_ignore_result")
#: Seconds that members of a large group may take before those made so far are sent.
_LONG = 0.05


def is_task(candidate: object) -> bool:
    """Tell whether this is a Celery task. One that is not made yet, by a lazy app, is left so."""
    return issubclass(type(candidate), Proxy) or isinstance(candidate, Task)


@dataclass(slots=True)
class RecordedCall:
    """A call of a task or a signature, as the messages that make it."""

    name: str
    #: Celery's result: the one that stands for the whole call, with its parents and members.
    result: Any
    messages: list[OutgoingMessage]
    #: Whether it was said in the call that there will be no result, or that there will be one.
    ignore_result: bool | None = None
    #: Where the result goes, if not to us: an address given as ``reply_to``.
    reply_elsewhere: bool = False
    #: Celery's result of the group, in a large call, whose members are called step by step.
    growing: Any = None
    #: Those members that are still to be called, with these options.
    rest: Iterator[SentResult] | None = None
    #: Whether those take long to make, so that each should be sent before the next one is made.
    slow: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)


class Recorder:
    """Builds calls for one app. Safe to use from any thread, and from a signal's receiver.

    :param app: the Celery app, which is not altered.
    :param reply_to: the address that workers shall send results to.
    :param backend: what ``ResultSettings.backend`` says. For ``rpc`` the results of linked tasks
        shall come to ``reply_to``, too.
    :param clock: tells the time in seconds, to templates.
    """

    def __init__(
        self,
        app: Celery,
        reply_to: str,
        *,
        backend: str = "disabled",
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.app = app
        self.reply_to = reply_to
        #: What is recorded; others may add to it, while a recording is open.
        self.tape: Tape = Tape()
        #: What Celery's and kombu's code publishes by.
        self.producer: RecordingProducer = RecordingProducer(app, self.tape.add)
        self._callback_address = CallbackAddress(reply_to if backend == "rpc" else None)
        self._view = app_view(
            app,
            reply_to,
            tape=self.tape,
            producer=self.producer,
            callback_address=self._callback_address,
            make_backend=partial(recording_backend, app, record=self.tape.add_write, kind=backend),
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
        """What an app sends by, replaced so that it is recorded."""
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
        """Record the next members of a large group: their results, and their messages.

        There are no more where there are no results. There are less than asked for where it takes
        long to make them.

        :param began: when the first of them was begun to be made, if not now.
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
        """Return what ``write`` stores with the backend that it is given."""
        with self.tape.recording() as recording:
            write(self.backend)
        return tuple(recording.writes)

    def ignores_result(self, call: RecordedCall, result: Any, message: Any) -> bool:
        """Tell whether the worker will send no result.

        Where a call leaves it open, the worker's task decides (``app/trace.py``); the task or
        the setting of the same name here is the best there is to know that. Up to Celery 5.5 a
        call can't ask for a result that the task ignores.

        :param result: Celery's result of the call, or of a part of it.
        :param message: the message of that part, or None for one that a worker will send.
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
