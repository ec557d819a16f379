"""What redis-py, the socket and the server say, as two errors. They never leave this folder.

One connection may serve both the broker and the result backend. So what goes wrong on it is told
apart only where it is known on whose behalf that was.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from redis import exceptions

from ...core.publishing import ConnectionLost
from ...errors import (
    BackendRefused,
    BackendUnreachable,
    BridgetaskError,
    BrokerUnreachable,
    Refused,
)
from .resp import ErrorReply, ProtocolError, Reply

__all__ = [
    "Denied",
    "Lost",
    "RedisError",
    "Unreachable",
    "backend_error",
    "broker_error",
    "denied",
    "first_error",
    "is_elsewhere",
    "translating",
]

#: Codes of errors that say: not this server, or not now.
_ELSEWHERE = frozenset({"READONLY", "LOADING", "MASTERDOWN", "UNBLOCKED"})


class RedisError(Exception):
    """Something went wrong between a Redis server and this."""


class Unreachable(RedisError):
    """No server can be connected to, or it says nothing, or not now."""


class Lost(Unreachable):
    """The connection was lost after something was written to it."""


class Denied(RedisError):
    """The server said no."""


@contextmanager
def translating(context: str) -> Iterator[None]:
    """Turn what redis-py and the socket raise into the errors of this module.

    :param context: what was being done, and with which server.
    :raises Denied: the server said no.
    :raises Unreachable: it said nothing, or not now.
    """
    try:
        yield
    except (BridgetaskError, RedisError):
        raise
    except (
        exceptions.RedisError,
        ProtocolError,
        OSError,
        EOFError,
        RuntimeError,
        ValueError,
    ) as error:
        kind = Denied if _is_refusal(error) else Unreachable
        raise kind(f"{context}: {text_of(error)}") from error


def _is_refusal(error: BaseException) -> bool:
    if isinstance(error, (exceptions.AuthenticationError, exceptions.NoPermissionError)):
        return True
    return isinstance(error, exceptions.ResponseError) and not isinstance(
        error, exceptions.ReadOnlyError
    )


def text_of(error: BaseException) -> str:
    """Return what an error says, or what it is where it says nothing."""
    failed: BaseException | None = error
    while failed is not None:  # older versions of redis-py say no more than its number
        if isinstance(failed, ssl.SSLError):
            return f"TLS failed: {failed}"
        failed = failed.__cause__ or failed.__context__
    if isinstance(error, (TimeoutError, exceptions.TimeoutError)):
        return "no answer in time"
    return str(error) or type(error).__name__


def first_error(replies: Iterable[Reply]) -> ErrorReply | None:
    """Return the first error among replies to commands, those of a transaction included."""
    for reply in replies:
        if type(reply) is list:
            for each in reply:
                if type(each) is ErrorReply:
                    return each
        elif type(reply) is ErrorReply:
            return reply
    return None


def is_elsewhere(reply: ErrorReply) -> bool:
    """Tell whether an error says that another connection may have more success."""
    return reply.code in _ELSEWHERE


def denied(context: str, reply: ErrorReply) -> RedisError:
    """Return the error for an error that the server has answered.

    :param context: what was being done.
    """
    kind = Unreachable if is_elsewhere(reply) else Denied
    return kind(f"{context}: {reply.text.removeprefix('ERR ')}")


def backend_error(error: RedisError) -> BackendRefused | BackendUnreachable:
    """Return bridgetask's error for one of a result backend."""
    kind = BackendRefused if isinstance(error, Denied) else BackendUnreachable
    told = kind(str(error))
    told.__cause__ = error.__cause__
    return told


def broker_error(error: RedisError) -> Refused | BrokerUnreachable:
    """Return bridgetask's error for one of a broker."""
    kind: type[Refused | BrokerUnreachable] = BrokerUnreachable
    if isinstance(error, Denied):
        kind = Refused
    elif isinstance(error, Lost):
        kind = ConnectionLost
    told = kind(str(error))
    told.__cause__ = error.__cause__
    return told
