"""Every error that bridgetask raises on its own account.

.. code-block:: text

    BridgetaskError
    ├── InvalidOption        an argument or a setting that can't be used; nothing was sent
    ├── ClientClosed         the client was closed, before the call or under it
    ├── WrongEventLoop       the client belongs to another event loop
    ├── SendError            a message was not handed over to the broker for certain
    │   ├── NotSent          the broker does not have it
    │   │   ├── BrokerUnreachable    no connection     (also kombu's OperationalError)
    │   │   ├── SendTimeout          deadline passed   (also the builtin TimeoutError)
    │   │   ├── NotRoutable          no queue takes it
    │   │   ├── Overloaded           too many messages wait to be sent already
    │   │   └── Refused              login, permission, declaration, size, or a nack
    │   └── Unconfirmed      outcome unknown: it may or may not be in the broker
    └── ResultError
        ├── ResultTimeout        (also Celery's and the builtin TimeoutError)
        ├── ResultUnavailable    the result can't come any more, or never could
        ├── ResultUndecodable    a result arrived that can't be read
        ├── BackendError         the result backend could not be asked
        │   ├── BackendUnreachable   no connection, or no answer
        │   └── BackendRefused       login, permission, memory, or a command it does not have
        ├── TaskFailed           the task raised what can't be rebuilt here
        └── TaskRevoked          (also Celery's TaskRevokedError)

A task that raised an exception which *can* be rebuilt raises that exception itself, with
a :class:`RemoteTraceback` as its cause.
"""

from __future__ import annotations

from typing import Any

from celery.exceptions import TaskRevokedError
from celery.exceptions import TimeoutError as CeleryTimeoutError
from kombu.exceptions import OperationalError

__all__ = [
    "BackendError",
    "BackendRefused",
    "BackendUnreachable",
    "BridgetaskError",
    "BrokerUnreachable",
    "ClientClosed",
    "InvalidOption",
    "NotRoutable",
    "NotSent",
    "Overloaded",
    "Refused",
    "RemoteTraceback",
    "ResultError",
    "ResultTimeout",
    "ResultUnavailable",
    "ResultUndecodable",
    "SendError",
    "SendTimeout",
    "TaskFailed",
    "TaskRevoked",
    "Unconfirmed",
    "WrongEventLoop",
]


class BridgetaskError(Exception):
    """The root of bridgetask's errors."""


class InvalidOption(BridgetaskError, ValueError, TypeError):
    """An argument or a setting can't be used. Nothing was sent.

    :ivar option: the name of the argument or of the Celery setting.
    """

    def __init__(self, option: str, problem: str) -> None:
        super().__init__(option, problem)
        self.option = option
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.option}: {self.problem}"


class ClientClosed(BridgetaskError):
    """The client was closed, before the call or while it was under way."""


class WrongEventLoop(BridgetaskError, RuntimeError):
    """The client or the handle belongs to another event loop."""


class _AboutTask(BridgetaskError):
    """An error that knows which task it is about."""

    def __init__(self, message: str, *, task_id: str | None = None) -> None:
        super().__init__(message)
        self.task_id = task_id

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self.args, self.__dict__


class SendError(_AboutTask):
    """A message was not handed over to the broker for certain.

    :ivar task_id: the task's id, or None where the message was no task (a control command).
    """


class NotSent(SendError):
    """The broker does not have the message: the task will not run."""


class BrokerUnreachable(NotSent, OperationalError):
    """No connection to any broker could be made."""


class SendTimeout(NotSent, TimeoutError):
    """The deadline passed before the message left this process."""


class NotRoutable(NotSent):
    """The broker returned the message: no queue is bound to where it was sent."""


class Overloaded(NotSent):
    """Too many messages wait for the broker's confirm already: ``max_queued`` of the client.

    The broker is slow, blocked, or out of reach, or the program does not wait for it. Waiting for
    ``sent()`` of earlier calls keeps a program from getting here.
    """


class Refused(NotSent):
    """The broker refused: a login, a permission, a declaration, a message's size, or a nack.

    :ivar code: AMQP's reply code (403, 404, 406 ...), or None where there was none.
    """

    def __init__(
        self, message: str, *, task_id: str | None = None, code: int | None = None
    ) -> None:
        super().__init__(message, task_id=task_id)
        self.code = code


class Unconfirmed(SendError):
    """The message left, and no answer came: the broker may or may not have it.

    To send it again without the risk of running twice under two ids, send it with
    ``task_id=error.task_id``.
    """


class ResultError(_AboutTask):
    """A result could not be had.

    :ivar task_id: the task's id.
    """


class ResultTimeout(ResultError, CeleryTimeoutError, TimeoutError):
    """The result did not come in time. The task is untouched, and can be waited for again."""


class ResultUnavailable(ResultError):
    """The result can't come any more, or never could."""


class ResultUndecodable(ResultError):
    """A result arrived that can't be read: content that is not accepted, or a broken body."""


class BackendError(ResultError):
    """The result backend could not be asked. The task is untouched.

    A task whose result could not be received for this reason is not sent:
    :class:`NotSent`, with this as its cause.
    """


class BackendUnreachable(BackendError):
    """The result backend can't be connected to, or does not answer."""


class BackendRefused(BackendError):
    """The result backend refused: a login, a permission, a lack of memory, an unknown command."""


class TaskFailed(ResultError):
    """The task raised an exception that can't be rebuilt, or must not be raised, here.

    :ivar exc_type: the exception's class, as the worker named it.
    :ivar exc_module: its module, or None.
    :ivar exc_args: its arguments, as far as they could be serialised.
    :ivar traceback: the worker's traceback as text, or None.
    """

    def __init__(
        self,
        exc_type: str,
        exc_args: tuple[Any, ...] = (),
        *,
        exc_module: str | None = None,
        traceback: str | None = None,
        task_id: str | None = None,
    ) -> None:
        super().__init__(exc_type, task_id=task_id)
        self.args: tuple[Any, ...] = (exc_type, exc_args)
        self.exc_type = exc_type
        self.exc_module = exc_module
        self.exc_args = exc_args
        self.traceback = traceback

    def __str__(self) -> str:
        return f"{self.exc_type}({', '.join(map(repr, self.exc_args))})"


class TaskRevoked(ResultError, TaskRevokedError):
    """The task was revoked: it did not run, or was stopped."""


class RemoteTraceback(Exception):
    """The traceback of a worker, as the cause of the exception that its task raised."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text.rstrip()}\n"""'
