"""What redis-py and the socket raise, as bridgetask's errors. Nothing else gets out."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager

from redis import exceptions

from ...errors import BackendRefused, BackendUnreachable, BridgetaskError

__all__ = ["translating"]


@contextmanager
def translating(context: str) -> Iterator[None]:
    """Turn what redis-py and the socket raise into bridgetask's errors.

    :param context: what was being done, and with which server.
    :raises BackendRefused: the server said no.
    :raises BackendUnreachable: it said nothing, or not now.
    """
    try:
        yield
    except BridgetaskError:
        raise
    except (exceptions.RedisError, OSError, EOFError, RuntimeError, ValueError) as error:
        kind = BackendRefused if _is_refusal(error) else BackendUnreachable
        raise kind(f"{context}: {_text(error)}") from error


def _is_refusal(error: BaseException) -> bool:
    if isinstance(error, (exceptions.AuthenticationError, exceptions.NoPermissionError)):
        return True
    return isinstance(error, exceptions.ResponseError) and not isinstance(
        error, exceptions.ReadOnlyError
    )


def _text(error: BaseException) -> str:
    failed: BaseException | None = error
    while failed is not None:  # older versions of redis-py say no more than its number
        if isinstance(failed, ssl.SSLError):
            return f"TLS failed: {failed}"
        failed = failed.__cause__ or failed.__context__
    if isinstance(error, (TimeoutError, exceptions.TimeoutError)):
        return "no answer in time"
    return str(error) or type(error).__name__
