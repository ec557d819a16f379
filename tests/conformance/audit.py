"""Counts what does not go through bridgetask: messages and commands of blocking clients."""

from __future__ import annotations

import functools
import subprocess
import sys
from collections import Counter
from typing import Any

import amqp
import redis

from .bridge import Bridge

__all__ = ["Audit"]

#: The methods of py-amqp's channel that say or ask something of the broker.
_AMQP_METHODS = (
    "_basic_publish",
    "basic_consume",
    "basic_get",
    "exchange_declare",
    "queue_bind",
    "queue_declare",
    "queue_delete",
    "queue_purge",
)

#: Packages that only carry what others ask of them.
_CARRIERS = ("amqp", "kombu", "redis", "subprocess", "tests.conformance", "vine", "functools")


class Audit:
    """What the client side does past bridgetask, and where in the code that is.

    bridgetask uses none of this, so that what happens on its loop is counted too: receivers of
    signals run there.
    """

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge
        #: How often, by what it was.
        self.counted: Counter[str] = Counter()

    def begin(self) -> None:
        """Begin to count."""
        for name in _AMQP_METHODS:
            self._watch(amqp.Channel, name, f"AMQP {name.lstrip('_')}")
        self._watch(redis.Redis, "execute_command", "Redis")
        self._watch(redis.client.PubSub, "execute_command", "Redis")
        self._watch(redis.client.Pipeline, "execute", "Redis pipeline")
        self._watch(subprocess.Popen, "__init__", "subprocess")

    def _watch(self, owner: type, name: str, what: str) -> None:
        original = getattr(owner, name)

        @functools.wraps(original)
        def watched(this: Any, *args: Any, **kwargs: Any) -> Any:
            if self._bridge.on_client_side:
                command = f" {args[0]}" if what == "Redis" else ""
                self.counted[f"{what}{command} from {_whence()}"] += 1
            return original(this, *args, **kwargs)

        setattr(owner, name, watched)


def _whence() -> str:
    """Return the function that wanted this."""
    frame = sys._getframe(2)
    while frame.f_back is not None:
        module = frame.f_globals.get("__name__", "")
        if module.partition(".")[0] not in _CARRIERS and not module.startswith(_CARRIERS):
            break
        frame = frame.f_back
    return f"{frame.f_globals.get('__name__')}.{frame.f_code.co_qualname}"
