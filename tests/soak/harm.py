"""Random faults, one after the other, each of which is over before the next."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from ..fix_proxy import Proxy
from ..redis_servers import Redis
from ..servers import RabbitMQ, Worker

__all__ = ["Harm"]


@dataclass(frozen=True)
class Victims:
    """Servers, the proxies before them, and workers."""

    node: RabbitMQ
    proxy: Proxy
    redis: Redis
    redis_proxy: Proxy
    workers: list[Worker]


class Harm:
    """Does harm to what lies between a client and its tasks.

    :param over: called with the name of each fault when it is over; some are followed by the next
        one only when that returns.
    """

    def __init__(
        self,
        victims: Victims,
        chance: random.Random,
        over: Callable[[str], Awaitable[None]],
        *,
        heartbeat: float,
    ) -> None:
        self._victims = victims
        self._node = victims.node
        self._proxy = victims.proxy
        self._redis = victims.redis
        self._chance = chance
        self._over = over
        self._heartbeat = heartbeat
        self.done: Counter[str] = Counter()

    async def run(self, seconds: float) -> None:
        """Do harm for so long."""
        network = [
            *(self._cut, self._outage, self._stall, self._half_open, self._deaf, self._mute),
            *(self._slow, self._narrow, self._half_close),
        ]
        quick = [
            *(self._swallow, self._force_close, self._block_the_loop, self._kill_subscriptions),
        ]
        servers = [
            *(self._close_all, self._memory, self._disk, self._restart, self._kill_node),
            *(self._kill_worker, self._kill_redis, self._freeze_redis),
        ]
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while loop.time() < end:
            await asyncio.sleep(self._chance.uniform(0.5, 3))
            (kind,) = self._chance.choices((network, quick, servers), (5, 2, 3))
            fault = self._chance.choice(kind)
            name = fault.__name__.strip("_").replace("_", " ")
            self._proxy = self._victims.proxy
            if kind is network and self._chance.random() < 0.3:
                self._proxy = self._victims.redis_proxy
                name += " to Redis"
            self.done[name] += 1
            print(f"{time.strftime('%H:%M:%S')} {name}", flush=True)
            await fault()
            if self._chance.random() < 0.7:
                await self._over(name)

    async def _while(self, do: Callable[[], Any], *, heal: bool = True) -> None:
        """Leave the proxy at doing harm for a while."""
        do()
        await asyncio.sleep(self._chance.uniform(0.2, 2 * self._heartbeat))
        if heal:
            self._proxy.heal()
        else:
            self._proxy.restore()

    # On the network.

    async def _cut(self) -> None:
        self._proxy.cut()

    async def _outage(self) -> None:
        self._proxy.refuse()
        await self._while(self._proxy.cut)

    async def _stall(self) -> None:
        await self._while(self._proxy.stall, heal=False)

    async def _half_open(self) -> None:
        self._proxy.drop()
        self._proxy.restore()
        await asyncio.sleep(2 * self._heartbeat)

    async def _deaf(self) -> None:
        await self._while(lambda: self._proxy.drop("up"))

    async def _mute(self) -> None:
        await self._while(lambda: self._proxy.drop("down"))

    async def _slow(self) -> None:
        await self._while(lambda: self._proxy.delay(0.3), heal=False)

    async def _narrow(self) -> None:
        await self._while(lambda: self._proxy.throttle(20_000), heal=False)

    async def _half_close(self) -> None:
        self._proxy.half_close(self._chance.choice(["up", "down"]))

    # On connections.

    async def _swallow(self) -> None:
        await self._while(self._proxy.swallow_confirms)

    async def _force_close(self) -> None:
        self._proxy.force_close()

    async def _kill_subscriptions(self) -> None:
        await asyncio.to_thread(self._redis.cli, "CLIENT", "KILL", "TYPE", "pubsub")

    # In this process.

    async def _block_the_loop(self) -> None:
        time.sleep(self._chance.uniform(0.1, 3 * self._heartbeat))

    # On the servers.

    async def _close_all(self) -> None:
        await asyncio.to_thread(self._node.close_all_connections)

    async def _memory(self) -> None:
        await self._alarm(self._node.set_memory_alarm)

    async def _disk(self) -> None:
        await self._alarm(self._node.set_disk_alarm)

    async def _alarm(self, set_alarm: Callable[[bool], None]) -> None:
        await asyncio.to_thread(set_alarm, True)
        await asyncio.sleep(self._chance.uniform(0.2, 4))
        await asyncio.to_thread(set_alarm, False)

    async def _restart(self) -> None:
        await asyncio.to_thread(self._node.ctl, "stop_app")
        await asyncio.sleep(self._chance.uniform(0, 3))
        await asyncio.to_thread(self._node.ctl, "start_app")

    async def _kill_node(self) -> None:
        await asyncio.to_thread(self._node.kill)
        await asyncio.to_thread(self._node.start)

    async def _kill_worker(self) -> None:
        worker = self._chance.choice(self._victims.workers)
        await asyncio.to_thread(worker.kill)
        await asyncio.to_thread(worker.start)

    async def _kill_redis(self) -> None:
        await asyncio.to_thread(self._redis.kill)
        await asyncio.sleep(self._chance.uniform(0, 3))
        await asyncio.to_thread(self._redis.start)

    async def _freeze_redis(self) -> None:
        self._redis.freeze()
        await asyncio.sleep(self._chance.uniform(0.2, 4))
        self._redis.thaw()
