"""Translates what aio-pika, aiormq and the socket raise into bridgetask's errors."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

import aiormq.exceptions

from ...core.publishing import ClosedOver, ConnectionLost
from ...errors import (
    BridgetaskError,
    BrokerUnreachable,
    NotRoutable,
    Refused,
)

__all__ = ["nacked", "not_routable", "of_publishing", "translated", "translating"]

#: Reply codes with which RabbitMQ refuses a login or a virtual host.
_LOGIN_REFUSED = {403, 530}


class translating:  # noqa: N801
    """Raises bridgetask's errors in place of those of aio-pika, aiormq and the socket.

    When the connection is lost, aiormq cancels its own futures, so that a ``CancelledError`` comes
    out of it. The task was not cancelled if its count of requests to cancel it has not grown.

    :param context: begins the messages of the errors, such as "can't connect to host".
    """

    def __init__(self, context: str = "") -> None:
        self._context = context
        self._cancelling = 0

    def __enter__(self) -> None:
        self._cancelling = _cancelling()

    def __exit__(self, _: Any, error: BaseException | None, __: Any) -> None:
        if error is None or isinstance(error, BridgetaskError):
            return
        if isinstance(error, asyncio.CancelledError) and _cancelling() > self._cancelling:
            return
        ours = _translate(error, self._context)
        if ours is not None:
            raise ours from error


def _cancelling() -> int:
    task = asyncio.current_task()
    return task.cancelling() if task is not None else 0


def translated(error: BaseException | None) -> BridgetaskError:
    """Return bridgetask's error for the reason that a publisher's channel was closed for."""
    ours = _translate(error, "") if error is not None else None
    if ours is None:
        return ConnectionLost(str(error or "closed"))
    ours.__cause__ = error
    return of_publishing(ours)


def of_publishing(error: BridgetaskError) -> BridgetaskError:
    """Tell of a refusal with a reply code, which closes the channel, as :class:`ClosedOver`."""
    if not isinstance(error, Refused) or error.code is None:
        return error
    closed_over = ClosedOver(str(error), code=error.code)
    closed_over.__cause__ = error.__cause__
    return closed_over


def not_routable(reason: str, exchange: str, routing_key: str) -> NotRoutable:
    """Return the error for a ``basic.return``."""
    return NotRoutable(
        f"{reason}: no queue is bound for routing key {routing_key!r} of exchange {exchange!r}"
    )


def nacked() -> Refused:
    """Return the error for a ``basic.nack``."""
    return Refused("the broker did not accept the message (basic.nack)")


def _translate(error: BaseException, context: str) -> BridgetaskError | None:
    prefix = f"{context}: " if context else ""
    if isinstance(error, aiormq.exceptions.PublishError):
        frame: Any = error.frame
        return not_routable(frame.reply_text, frame.exchange, frame.routing_key)
    if isinstance(error, aiormq.exceptions.DeliveryError):
        return nacked()
    code = _reply_code(error)
    text = _reply_text(error)
    if isinstance(error, aiormq.exceptions.ProbableAuthenticationError) or (
        context and code in _LOGIN_REFUSED
    ):
        return Refused(f"{prefix}{text}", code=code)
    if isinstance(error, aiormq.exceptions.ChannelClosed) and code is not None:
        return Refused(f"{prefix}{text}", code=code)
    if isinstance(error, ssl.SSLError):
        return BrokerUnreachable(f"{prefix}TLS failed: {error}")
    if isinstance(error, TimeoutError):
        return BrokerUnreachable(f"{prefix}no answer in time")
    if isinstance(
        error,
        (aiormq.exceptions.AMQPError, OSError, EOFError, asyncio.CancelledError, RuntimeError),
    ):
        kind = BrokerUnreachable if context else ConnectionLost
        return kind(f"{prefix}{text or type(error).__name__}")
    return None


_CODES: dict[type[BaseException], int] = {
    aiormq.exceptions.ChannelAccessRefused: 403,
    aiormq.exceptions.ChannelNotFoundEntity: 404,
    aiormq.exceptions.ChannelLockedResource: 405,
    aiormq.exceptions.ChannelPreconditionFailed: 406,
    aiormq.exceptions.ProbableAuthenticationError: 403,
    aiormq.exceptions.ConnectionNotAllowed: 530,
}


def _reply_code(error: BaseException) -> int | None:
    """Return AMQP's reply code, if there is one. aiormq's named classes have only the text."""
    code = _CODES.get(type(error))
    if code is None and error.args and isinstance(error.args[0], int):
        code = error.args[0]
    return code


def _reply_text(error: BaseException) -> str:
    strings = [each for each in error.args if isinstance(each, str)]
    return strings[-1] if strings else str(error)
