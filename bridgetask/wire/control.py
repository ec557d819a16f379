"""Commands to workers and their replies, by ``kombu.pidbox`` and ``celery.app.control``.

Celery's own ``Control`` and ``Inspect`` run here, with their I/O replaced. They are synchronous,
and can't wait for it. So a call runs until it needs I/O, which ends that run. When the I/O is done,
the call runs again from its beginning, and gets the outcome.
"""

from __future__ import annotations

import numbers
from collections.abc import Callable, Collection, Generator, Iterable, Mapping
from contextlib import nullcontext
from copy import copy
from dataclasses import dataclass
from time import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeVar

from celery.exceptions import ImproperlyConfigured
from kombu import matcher as matchers
from kombu.exceptions import EncodeError
from kombu.pidbox import Mailbox, Node
from kombu.serialization import prepare_accept_content
from kombu.utils.functional import maybe_list
from kombu.utils.uuid import uuid

from ..errors import InvalidOption
from .message import Declaration, OutgoingMessage, Properties
from .producer import RecordingChannel, declarations_of
from .recorder import Recorder
from .results import load

if TYPE_CHECKING:
    from celery import Celery

__all__ = ["Command", "ControlMailbox", "Purge", "check_own"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Command:
    """A command that Celery would have broadcast. Its outcome is the list of replies."""

    name: str
    arguments: Mapping[str, Any]
    message: OutgoingMessage
    #: Whether it is for all workers, rather than for a destination or a pattern.
    to_all: bool
    #: Identifies the replies; None if no worker shall reply.
    ticket: str | None
    #: Seconds to wait for replies; None waits until :meth:`enough` have come.
    timeout: float | None
    #: How many replies to wait for, or None if the caller has set no limit.
    limit: int | None
    callback: Callable[[Any], object] | None

    def enough(self, workers: int | None) -> int | None:
        """Return how many replies to wait for, or None if that is not known.

        :param workers: how many workers there are, or None if that is not known.
        """
        return self.limit or (workers if self.to_all else None)

    @property
    def revoked_ids(self) -> Collection[str]:
        """The ids of the tasks that this revokes on all workers."""
        if self.name != "revoke" or not self.to_all:
            return ()
        return maybe_list(self.arguments.get("task_id")) or ()

    @property
    def revokes_by_stamps(self) -> bool:
        """Whether this revokes tasks on all workers by their stamps."""
        return self.name == "revoke_by_stamped_headers" and self.to_all

    def revokes(self, stamps: Mapping[str, Any]) -> bool:
        """Tell whether this revokes tasks that have these stamps.

        Follows ``Request.revoked`` and ``revoke_by_stamped_headers`` of Celery's worker.
        """
        headers = self.arguments.get("headers") or {}
        if not isinstance(headers, Mapping):
            headers = dict(header.split("=")[:2] for header in headers)
        return any(
            stamp in maybe_list(headers[header])
            for header, given in stamps.items()
            if header in headers
            for stamp in maybe_list(given) or ()
        )


@dataclass(frozen=True, slots=True)
class Purge:
    """A queue to empty. The outcome is the number of messages that were in it."""

    queue: str
    declarations: tuple[Declaration, ...]


_LATEST_CLOCK = 2**62


class ControlMailbox:
    """Writes commands and reads replies as Celery does, with an address of our own for replies.

    Celery's address is ``app.thread_oid``. If ours was the same, Celery's own blocking
    ``control.ping()`` and ours would get each other's replies.
    """

    def __init__(self, app: Celery, recorder: Recorder) -> None:
        self._app = app
        try:
            _ = app.control.inspect  # made once, and kept there
        except ImproperlyConfigured as error:
            raise InvalidOption("control_queue_exclusive", str(error)) from error
        self._mailbox = _recording(app.control.mailbox, recorder, address=uuid())
        self._accept = prepare_accept_content(app.conf.accept_content)
        queue = self._mailbox.get_reply_queue()
        #: The name of the queue that replies arrive in.
        self.reply_queue: str = queue.name
        #: What must be declared before replies can arrive.
        self.reply_declarations: tuple[Declaration, ...] = declarations_of(queue)

    def converse(self, call: Callable[[Any], T]) -> Generator[Command | Purge, Any, T]:
        """Run ``call`` on Celery's own control, and return what it returns.

        Yields the I/O that it needs, one request after the other, and takes the outcome of each.

        :raises InvalidOption: naming the argument that can't be used.
        """
        answers: list[Any] = []
        while True:
            try:
                return call(self._control(_Connection(_answering(answers))))
            except _Unanswered as unanswered:
                request = unanswered.request
            except EncodeError as error:
                raise InvalidOption("arguments", f"can't be serialised: {error}") from error
            answers.append((yield request))

    def control(self, perform: Callable[[Command | Purge], Any]) -> Any:
        """Return Celery's own control.

        :param perform: takes a request for I/O, and returns its outcome.
        """
        return self._control(_Connection(lambda request: perform(request())))

    def _control(self, connection: _Connection) -> Any:
        """Return a copy of the app's control that uses ``connection``."""
        control = copy(self._app.control)
        view: Any = _AppView(self._app, control, connection)
        control.app = view
        control.mailbox = self._mailbox
        return control

    def node(self, node_class: type[Node], hostname: str, handlers: Any) -> Node:
        """Return kombu's end of the mailbox in a worker, which obeys commands."""
        return node_class(hostname, handlers=handlers, mailbox=self._mailbox)

    def read_command(self, message: OutgoingMessage) -> dict[str, Any] | None:
        """Return the body of a command; None for other messages."""
        if message.exchange != self._mailbox.exchange.name:
            return None
        body: dict[str, Any] = load(message.body, message.received, None)
        return body

    def reply(self, body: bytes, properties: Properties) -> tuple[str, Any] | None:
        """Return the ticket and the content of a reply; None if it has expired.

        :raises Exception: whatever kombu raises for a message that can't be read.
        """
        given = properties.headers or {}
        ticket, clock, expires = given["ticket"], given.get("clock") or 0, given.get("expires")
        if not isinstance(ticket, str):
            raise TypeError("ticket must be a string")
        # The clock is the app's. One near AMQP's largest number would stop it from sending.
        if not isinstance(clock, int) or not 0 <= clock <= _LATEST_CLOCK:
            raise ValueError("clock must be a number of 62 bits at most")
        self._mailbox.clock.adjust(clock)
        if expires and time() > expires:
            return None
        return ticket, load(body, properties, self._accept)


class _Unanswered(BaseException):
    """Ends a run of Celery's code that needs I/O. No ``except Exception`` catches it."""

    def __init__(self, request: Command | Purge) -> None:
        super().__init__(request)
        self.request = request


class _AppView:
    """The app, for Celery's control, with a connection that records."""

    def __init__(self, app: Celery, control: Any, connection: _Connection) -> None:
        self._app = app
        self._connection = connection
        self.control = control

    def __getattr__(self, name: str) -> Any:
        return getattr(self._app, name)

    def connection_or_acquire(self, connection: Any = None) -> nullcontext[_Connection]:
        check_own("connection", connection)
        return nullcontext(self._connection)


_Request = Callable[[], Command | Purge]


def _answering(answers: Iterable[Any]) -> Callable[[_Request], Any]:
    """Return a function that returns the outcomes of earlier runs' I/O, in their order.

    After those, it ends the run with :class:`_Unanswered`.
    """
    left = iter(answers)

    def answer(request: _Request) -> Any:
        for each in left:
            return each
        raise _Unanswered(request())

    return answer


class _Connection(RecordingChannel):
    """In place of a connection, and of the one channel on it.

    :param answer: returns the outcome of a command, or of purging a queue.
    """

    def __init__(self, answer: Callable[[_Request], Any]) -> None:
        super().__init__()
        self.answer = answer
        # kombu keeps there what it has declared.
        self.connection = SimpleNamespace(client=SimpleNamespace(declared_entities=set()))

    @property
    def default_channel(self) -> _Connection:
        return self

    def queue_purge(self, queue: str, nowait: bool = False) -> Any:
        return self.answer(lambda: Purge(queue, tuple(self.declarations)))


def _recording(mailbox: Mailbox, recorder: Recorder, address: str) -> Any:
    """Return a copy of the app's mailbox that records, with replies sent to ``address``."""
    mailbox_class: Any = type(mailbox)

    class RecordingMailbox(mailbox_class):  # type: ignore[misc]
        oid = address

        def producer_or_acquire(self, producer: Any = None, channel: Any = None) -> Any:
            return nullcontext(recorder.producer)

        def _broadcast(self, *args: Any, **kwargs: Any) -> Any:
            return self.connection.answer(lambda: self._record(*args, **kwargs))

        def _record(
            self,
            command: str,
            arguments: Mapping[str, Any] | None = None,
            destination: Any = None,
            reply: bool = False,
            timeout: Any = 1,
            limit: Any = None,
            callback: Any = None,
            **options: Any,
        ) -> Command:
            """Record what kombu's ``_broadcast`` sends."""
            _check(destination, reply, timeout, limit, callback, **options)
            collecting: dict[str, Any] = {}

            def publish(_: object) -> None:
                collect = mailbox_class._broadcast(
                    *(self, command, arguments, destination, reply, timeout, limit, callback),
                    **options,
                )
                collecting.update(collect or {"ticket": None, "limit": None})

            [message] = recorder.record(publish)
            return Command(
                command,
                dict(arguments or {}),
                message,
                to_all=not destination and not options.get("pattern"),
                timeout=timeout,
                callback=callback,
                **collecting,
            )

        def _collect(self, ticket: str, limit: int | None = None, **_: Any) -> dict[str, Any]:
            return {"ticket": ticket, "limit": limit or None}

    recording: Any = object.__new__(RecordingMailbox)
    recording.__dict__.update(mailbox.__dict__)
    recording.__dict__.pop("reply_queue", None)  # cached, with the app's own address
    return recording


def _check(
    destination: Any,
    reply: bool,
    timeout: Any,
    limit: Any,
    callback: Any,
    channel: Any = None,
    pattern: Any = None,
    matcher: Any = None,
) -> None:
    """Refuse arguments that can't be sent, or waited for.

    :raises InvalidOption: naming the argument.
    """
    if destination is not None and not isinstance(destination, (list, tuple)):
        raise InvalidOption(
            "destination", f"must be a list or tuple, not {type(destination).__name__}"
        )
    if timeout is not None and not isinstance(timeout, numbers.Real):
        raise InvalidOption("timeout", f"must be a number of seconds, not {timeout!r}")
    if limit is not None and not isinstance(limit, int):
        raise InvalidOption("limit", f"must be a whole number, not {limit!r}")
    if callback is not None and not callable(callback):
        raise InvalidOption("callback", f"must be callable, not {callback!r}")
    if reply and timeout is None and not limit and not destination:
        raise InvalidOption("timeout", "must be given where no limit or destination is")
    check_own("channel", channel)
    if pattern is not None and not isinstance(pattern, str):
        raise InvalidOption("pattern", f"must be a string, not {type(pattern).__name__}")
    known_matchers = sorted(matchers.registry._matchers)
    if matcher is not None and matcher not in known_matchers:
        known = ", ".join(known_matchers)
        raise InvalidOption("matcher", f"{matcher!r} is not registered; known are {known}")


def check_own(name: str, value: object) -> None:
    """Refuse a connection or a channel, which Celery takes.

    :raises InvalidOption: naming the argument.
    """
    if value is not None:
        raise InvalidOption(name, "can't be used: bridgetask uses its own connections")
