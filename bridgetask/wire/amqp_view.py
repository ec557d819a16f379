"""``app.amqp`` of a view of an app, which records what it sends.

Celery sends its signals as soon as a publish returns. A recorded publish returns before anything is
sent, so the signals are kept with the message until then.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from functools import partial
from types import FunctionType
from typing import TYPE_CHECKING, Any

from celery import signals

from .callback_address import CallbackAddress
from .observing import current_observations, observing
from .plain_repr import plain_repr, plain_repr_serves
from .tape import Tape

if TYPE_CHECKING:
    from celery import Celery

__all__ = ["AmqpView"]


class AmqpView:
    """``app.amqp``, with a task sender that sends no signal before a message is published.

    :param amqp: the app's own.
    :param app: the view of the app, which Celery's code reads settings from.
    """

    def __init__(
        self, amqp: Any, app: Celery, tape: Tape, callback_address: CallbackAddress
    ) -> None:
        self.app = app
        self._amqp = amqp
        self._tape = tape
        self._callback_address = callback_address
        self._router: Any = None
        self._event_dispatcher = _TaskSentEvents(amqp, tape)
        with observing() as observations:
            self._send_by_celery = self._create_task_sender()
        #: Settings that Celery's sender reads once, and keeps.
        self.kept_settings: Mapping[str, Any] = observations.settings

    def __getattr__(self, name: str) -> Any:
        return getattr(self._amqp, name)

    @property
    def router(self) -> Any:
        """The app's router, which reads the configuration from the view."""
        router = self._amqp.router
        if self._router is None or self._router[0] is not router:
            ours = copy(router)
            ours.app = self.app
            self._router = router, ours
        return self._router[1]

    def create_task_message(
        self, task_id: str, name: str, args: Any, kwargs: Any, *more: Any, **options: Any
    ) -> Any:
        """Follow ``AMQP.create_task_message``; give linked tasks an address for their results."""
        create: Any = self._amqp.create_task_message
        if plain_repr_serves(self._amqp, self.app.conf):
            for option, value in (("argsrepr", args or ()), ("kwargsrepr", kwargs or {})):
                if options.get(option) is None:
                    options[option] = plain_repr(value)
        message = create(task_id, name, args, kwargs, *more, **options)
        self._callback_address.write_on(message.body)
        return message

    def send_task_message(self, producer: Any, name: str, message: Any, **options: Any) -> None:
        """Record what ``AMQP.send_task_message`` sends."""
        self._observe_destination(options.get("queue"), options.get("exchange"))
        task_id = message.properties["correlation_id"]  # options may change it
        send = partial(self._send_by_celery, producer, name, message, **options)
        self._tape.record_task(task_id, send)

    def _observe_destination(self, queue: Any, exchange: Any) -> None:
        observations = current_observations()
        if observations is not None:
            if queue is None and exchange is None:
                queue = self.default_queue
            observations.destinations += [queue, exchange]

    def _create_task_sender(self) -> Any:
        """Run ``AMQP._create_task_sender`` with its ``signals`` replaced."""
        original = type(self._amqp)._create_task_sender
        replaced = original.__globals__ | {"signals": _DeferredSignals(self._tape)}
        rebound = FunctionType(
            original.__code__, replaced, original.__name__, None, original.__closure__
        )
        return rebound(self)


class _DeferredSignals:
    """``celery.signals``. The two that announce a published message are kept until it is."""

    def __init__(self, tape: Tape) -> None:
        self.before_task_publish = _Signal(signals.before_task_publish)
        self.after_task_publish = _DeferredSignal(signals.after_task_publish, tape)
        self.task_sent = _DeferredSignal(signals.task_sent, tape)


class _Signal:
    """A signal of Celery's. ``receivers`` is true while there are any.

    Up to Celery 5.5 the sender asks for the list once, and Celery replaces it now and then.
    """

    def __init__(self, signal: Any) -> None:
        self._signal = signal

    @property
    def receivers(self) -> _Signal:
        return self

    def __bool__(self) -> bool:
        return bool(self._signal.receivers)

    def send(self, **kwargs: Any) -> None:
        self._signal.send(**kwargs)


class _DeferredSignal(_Signal):
    def __init__(self, signal: Any, tape: Tape) -> None:
        super().__init__(signal)
        self._tape = tape

    def send(self, **kwargs: Any) -> None:
        if self:
            self._tape.on_published(partial(self._signal.send, **kwargs))


class _TaskSentEvents:
    """Celery's dispatcher of ``task-sent`` events. It is no error if no queue takes them."""

    def __init__(self, amqp: Any, tape: Tape) -> None:
        self._amqp = amqp
        self._tape = tape

    def publish(self, *args: Any, **kwargs: Any) -> None:
        with self._tape.not_mandatory():
            self._amqp._event_dispatcher.publish(*args, **kwargs)
