"""Celery's own code builds the messages of a call; a recording producer keeps them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from time import monotonic
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Self

import celery.app.task
from celery import Task
from celery.canvas import Signature
from celery.local import Proxy, maybe_evaluate
from kombu import Connection, Producer

from ..errors import InvalidOption
from .app_view import MakeBackend, app_view, task_view
from .canvas import AT_ONCE, SentResult, apply_in_steps, bind, is_large
from .message import OutgoingMessage, StoreWrite
from .options import check_call, raise_naming_the_option
from .producer import RecordingChannel, RecordingProducer

if TYPE_CHECKING:
    from celery import Celery

    from .templates import Templates

__all__ = ["RecordedCall", "Recorder", "is_task"]

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
    :param connection: a kombu connection like the app's, which nothing connects.
    :param channel: what messages and declarations are recorded on.
    :param make_backend: makes what stands for the app's result backend, of the view that Celery's
        code runs on and of what takes its writes.
    :param address_callbacks: whether results of linked tasks shall come to ``reply_to``, too.
        Celery sends those to the worker itself (celery issue 6107).
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
    ) -> None:
        self.app = app
        self.reply_to = reply_to
        self._address_callbacks = address_callbacks
        #: Whether any call had linked tasks, whose results come here as well.
        self.links_used: bool = False
        self._recording: ContextVar[_Recording] = ContextVar("recording")
        self._mandatory: ContextVar[bool] = ContextVar("mandatory", default=True)
        self.producer: RecordingProducer = RecordingProducer(connection, channel, self.add)
        #: In place of the app's, which Celery asks which kind of broker it talks to.
        self.producer_pool: SimpleNamespace = SimpleNamespace(
            connections=SimpleNamespace(connection=self.producer.connection)
        )
        self._view = app_view(app, self, make_backend)
        #: Calls that are made without Celery's code.
        self.templates: Templates = self._view._templates
        #: The view's backend: Celery's own for Redis, but for its I/O.
        self.backend: Any = self._view.backend

    def send_task(self, name: str, args: Any, kwargs: Any, options: dict[str, Any]) -> RecordedCall:
        """Record what ``Celery.send_task`` does.

        :raises InvalidOption: naming the argument or the option that can't be used.
        """
        if not isinstance(name, str):
            raise InvalidOption("name", f"must be a string, not {type(name).__name__}")
        return self._record(name, self._view.send_task, (name, args, kwargs), options)

    def apply_async(
        self, task: Any, args: Any, kwargs: Any, options: dict[str, Any]
    ) -> RecordedCall:
        """Record what ``Task.apply_async`` or ``Signature.apply_async`` does.

        :raises TypeError: the task does not take these arguments.
        :raises InvalidOption: naming the argument or the option that can't be used.
        """
        task = maybe_evaluate(task)
        if isinstance(task, Task):
            apply = task_view(task, self._view).apply_async
            return self._record(task.name, apply, (args, kwargs), options)
        if isinstance(task, Signature):
            began = monotonic()
            in_steps = not self.app.conf.task_always_eager and is_large(task)
            signature = bind(task, self._view, lazily=in_steps)
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
        results: list[Any] = []
        until = (monotonic() if began is None else began) + _LONG
        with _Recording(self._recording, call.options) as recording:
            for result in islice(call.rest or (), members):
                results.append(result)
                call.slow = monotonic() > until
                if call.slow:
                    break
        return results, recording.messages

    def record(self, publish: Callable[[Producer], object]) -> list[OutgoingMessage]:
        """Return the messages that ``publish`` sends through the producer it is given."""
        with _Recording(self._recording) as recording:
            publish(self.producer)
        return recording.messages

    @property
    def sending_parts(self) -> dict[str, Any]:
        """What an app sends by, replaced so that it is recorded."""
        names = ("amqp", "producer_or_acquire", "producer_pool")
        return {name: getattr(self._view, name) for name in names}

    def record_writes(self, write: Callable[[Any], object]) -> tuple[StoreWrite, ...]:
        """Return what ``write`` stores with the backend that it is given."""
        with _Recording(self._recording) as recording:
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
        return bool(task.ignore_result if task else self._view.conf.task_ignore_result)

    def _record(
        self, name: str, call: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]
    ) -> RecordedCall:
        check_call(args[-2], args[-1], options)
        with _Recording(self._recording, options) as recording:
            result = call(*args, **options)
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
        with _Recording(self._recording, options):
            result, growing, rest = apply_in_steps(signature, args, kwargs, dict(options))
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

    # What the view asks for while Celery's code runs:

    def producer_or_acquire(self, producer: Any = None) -> nullcontext[Any]:
        """Follow ``Celery.producer_or_acquire``, with the recording producer."""
        return nullcontext(self.producer)

    def record_task(self, task_id: str, send: Callable[[], object]) -> None:
        """Let ``send`` record a task's message, in a context that its ``on_published`` return to.

        OpenTelemetry enters a span in ``before_task_publish`` and leaves it in
        ``after_task_publish``. Meanwhile other messages, and the caller, are not inside of it.
        """
        messages = self._recording.get().messages
        first = len(messages)
        context = copy_context()
        context.run(send)
        message = messages[first]  # an event may follow
        message.task_id = task_id
        message.on_published = [partial(context.run, each) for each in message.on_published]

    def on_published(self, callback: Callable[[], object]) -> None:
        """Keep ``callback`` with the message that was recorded last."""
        self._recording.get().messages[-1].on_published.append(callback)

    @contextmanager
    def not_mandatory(self) -> Iterator[None]:
        """Mark the messages recorded inside as free to reach nobody."""
        token = self._mandatory.set(False)
        try:
            yield
        finally:
            self._mandatory.reset(token)

    def address_callbacks(self, body: Any) -> None:
        """Stamp our address on linked tasks, which would else reply to the worker's own queue."""
        if not self._address_callbacks:
            return
        embedded = body if isinstance(body, dict) else body[2]
        self.links_used |= bool(embedded.get("callbacks") or embedded.get("errbacks"))
        for link in ("callbacks", "errbacks", "chain"):
            if embedded.get(link):
                embedded[link] = self._with_reply_to(embedded[link])

    def _with_reply_to(self, signatures: Any) -> Any:
        """Return a signature, or a list of them, with our address where there is none."""
        if isinstance(signatures, (list, tuple)):
            return type(signatures)(map(self._with_reply_to, signatures))
        # Pickle tells a signature from a dict. Neither copy looks at what is lazy in it.
        stamped = (Signature if isinstance(signatures, Signature) else dict)(signatures)
        options = dict(stamped.get("options") or {})
        options.setdefault("reply_to", self.reply_to)
        for link in ("link", "link_error"):
            if options.get(link):
                options[link] = self._with_reply_to(options[link])
        stamped["options"] = options
        return stamped

    def add(self, message: OutgoingMessage) -> None:
        """Keep a message that the producer published."""
        recording = self._recording.get()
        message.mandatory = self._mandatory.get()
        if recording.writes:
            message.requires = tuple(recording.writes)
            recording.writes.clear()
        recording.messages.append(message)

    def add_write(self, write: StoreWrite) -> None:
        """Keep what the backend stored: before the message that is recorded next."""
        self._recording.get().writes.append(write)


class _Recording:
    """Keeps what Celery's code sends and stores inside.

    :param options: those of a call.
    :raises InvalidOption: the error inside is due to one of them.
    """

    __slots__ = ("_current", "_options", "_token", "messages", "writes")

    def __init__(
        self, current: ContextVar[_Recording], options: Mapping[str, Any] | None = None
    ) -> None:
        self.messages: list[OutgoingMessage] = []
        #: What was to be stored since the last message.
        self.writes: list[StoreWrite] = []
        self._current = current
        self._options = options

    def __enter__(self) -> Self:
        self._token = self._current.set(self)
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        self._current.reset(self._token)
        if isinstance(error, Exception) and self._options is not None:
            raise_naming_the_option(error, self._options)
        if self.messages and self.writes:  # what is stored last goes before the last message
            self.messages[-1].requires += tuple(self.writes)
