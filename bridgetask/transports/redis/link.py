"""The connections of a client to one Redis, for all that it has there."""

from __future__ import annotations

import asyncio

from .pipeline import Connector, RedisPipeline
from .subscriptions import RedisSubscriptions

__all__ = ["OnRedis", "RedisLink"]


class RedisLink:
    """One connection for commands, and one to listen by. Each connects when it is first used.

    :param connector: opens them.
    """

    def __init__(self, connector: Connector, loop: asyncio.AbstractEventLoop) -> None:
        self.connector: Connector = connector
        self.pipeline: RedisPipeline = RedisPipeline(connector, loop)
        self.subscriptions: RedisSubscriptions = RedisSubscriptions(connector, loop)


class OnRedis:
    """Somebody whose link to a Redis others may use, too."""

    link: RedisLink
