"""Results that workers store in Redis, and announce on a channel a task, as Celery has it.

Subscribe, then read: what is stored before the subscription holds is read, what is stored after it
arrives. After a lost connection all that is still waited for is subscribed to and read again.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from functools import partial

from ...core.completion import Completion
from ...core.decoding import Decoding
from ...core.outcomes import PendingResults
from ...errors import (
    BackendUnreachable,
    BridgetaskError,
    ClientClosed,
    ResultUndecodable,
)
from ...retry import RetryPolicy
from ...wire.message import StoreWrite
from ...wire.results import SUCCESS, ResultDecoder, TaskUpdate
from .commands import RedisCommands
from .errors import RedisError, backend_error
from .link import RedisLink
from .subscriber import RedisSubscriber
from .watches import Watch, Watches

__all__ = ["RedisResults"]

logger: logging.Logger = logging.getLogger(__name__)

#: Results that one ``MGET`` asks for at most, and that are decoded in one turn of the loop.
_PER_READ, _PER_TURN = 500, 32


class RedisResults:
    """Receives results over one pub/sub connection, and reads them over another one.

    :param link: the connections, which others may use, too.
    :param db: the number of the database that results are stored in.
    :param retry: when to connect again while results are waited for.
    :param key_for: returns the key, and so the channel, of a task.
    """

    def __init__(
        self,
        link: RedisLink,
        db: int,
        retry: RetryPolicy,
        key_for: Callable[[str], bytes],
        decoder: ResultDecoder,
        pending: PendingResults,
        decoding: Decoding,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._retry = retry
        self._key_for = key_for
        self._decoder = decoder
        self._pending = pending
        self._decoding = decoding
        decoding.on_full, decoding.on_room = self._hold, self._release
        self._loop = loop
        self._commands = RedisCommands(link.pipeline, loop, backend_error, db)
        self._subscriptions = link.subscriptions
        self._subscriptions.join(self)
        self._subscriptions.on_message = self._on_message
        self._watches = Watches(key_for, pending, loop, self._begin, self._end)
        self._unread: list[Watch] = []
        self._unread_done = Completion()
        self._reading: asyncio.Task[None] | None = None
        self._recovery: asyncio.Task[None] | None = None
        self._closed = False

    # What tasks report.

    def expect(self, task_ids: Sequence[str]) -> None:
        for task_id in task_ids:
            self._watches.over(task_id)

    async def settle(self) -> None:
        """Do nothing: what workers will still store is not known."""

    @property
    def _subscriber(self) -> RedisSubscriber | None:
        return self._subscriptions.current

    @property
    def ready(self) -> bool:
        return self._subscriber is not None and self._subscriber.is_confirmed

    async def prepare(self) -> None:
        if self._closed:
            raise ClientClosed("the client is closed")
        try:
            subscriber = self._subscriber or await self._subscriptions.connected()
            await subscriber.confirmed()
        except RedisError as error:
            raise backend_error(error) from error.__cause__

    async def watch(self, task_id: str) -> None:
        watch = self._watches.over(task_id)
        if watch is None:
            return
        await (watch.read or self._read_again(watch)).wait()

    async def forget(self, task_id: str) -> None:
        key = self._key_for(task_id)
        self._watches.leave(key)
        await self._commands.execute(("DEL", key))

    def _begin(self, watch: Watch) -> None:
        if self._subscriber is not None:
            self._subscriber.subscribe(watch.channel)
        self._read_soon(watch)

    def _end(self, watch: Watch) -> None:
        if self._subscriber is not None:
            self._subscriber.unsubscribe(watch.channel)

    def _on_message(self, channel: bytes, payload: bytes) -> None:
        watch = self._watches.at(channel)
        if watch is None:
            return  # it came too late
        task_id = watch.task_id
        self._decoding.take(
            partial(self._decoder.decode_stored, payload, task_id),
            task_id,
            self._deliver,
            partial(self._fail, task_id),
            size=len(payload),
            slow=self._decoder.is_slow(payload),
        )

    def _hold(self) -> None:
        if self._subscriber is not None:
            self._subscriber.hold()

    def _release(self) -> None:
        if self._subscriber is not None:
            self._subscriber.release()

    async def _decode(self, task_id: str, payload: bytes) -> TaskUpdate | ResultUndecodable:
        try:
            decode = partial(self._decoder.decode_stored, payload, task_id)
            return await self._decoding.decode(decode, slow=self._decoder.is_slow(payload))
        except ResultUndecodable as error:
            return error

    def _fail(self, task_id: str, error: ResultUndecodable) -> None:
        self._watches.leave(self._key_for(task_id))
        self._pending.deliver_undecodable(error)

    def _deliver(self, update: TaskUpdate) -> None:
        if update.final:
            self._watches.leave(self._key_for(update.task_id))
        self._pending.deliver(update)

    # What is stored.

    async def fetch(self, task_ids: Sequence[str]) -> None:
        await self._read(task_ids)

    async def exists(self, task_id: str) -> bool:
        (found,) = await self._commands.execute(("EXISTS", self._key_for(task_id)))
        return bool(found)

    async def read(self, key: bytes) -> bytes | None:
        (value,) = await self._commands.execute(("GET", key))
        found: bytes | None = value
        return found

    async def write(self, writes: Sequence[StoreWrite]) -> None:
        await self._commands.execute(*(command for write in writes for command in _steps(write)))

    def _read_soon(self, watch: Watch) -> Completion:
        self._unread.append(watch)
        watch.read = self._unread_done
        if self._reading is None:
            self._reading = self._loop.create_task(
                self._read_unread(), name="bridgetask stored results"
            )
        return self._unread_done

    def _read_again(self, watch: Watch) -> Completion:
        watch.again = True
        return self._read_soon(watch)

    async def _read_unread(self) -> None:
        """Read what was stored before a subscription held; it is not announced again."""
        done = self._unread_done
        try:
            while self._unread:
                watches, self._unread = self._unread, []
                done, self._unread_done = self._unread_done, Completion()
                error: BridgetaskError | None = None
                try:
                    await self.prepare()
                    # A worker overwrites what is stored from an earlier task of the same id, and
                    # says so; unless that was a success: then it stores and says nothing.
                    unsent = {watch.task_id for watch in watches if watch.precedes_the_task}
                    await self._read([watch.task_id for watch in watches], only_success=unsent)
                except BridgetaskError as reason:
                    error = reason
                except Exception as reason:  # whatever it is, nobody may wait for ever
                    logger.exception("Reading from Redis failed")
                    error = BackendUnreachable(f"unexpected {reason!r}")
                if error is not None:
                    for watch in watches:
                        if watch.read is done:
                            watch.read = None
                    self._recover_soon()
                done.complete(error)
        except asyncio.CancelledError:
            for unfinished in (done, self._unread_done):
                unfinished.complete(ClientClosed("the client was closed"))
            raise
        finally:
            self._reading = None

    async def _read(
        self, task_ids: Sequence[str], only_success: Collection[str] = frozenset()
    ) -> None:
        """Read what is stored, and deliver it unless something newer has arrived meanwhile."""
        for start in range(0, len(task_ids), _PER_READ):
            asked = task_ids[start : start + _PER_READ]
            known = {task_id: self._latest(task_id) for task_id in asked}
            (values,) = await self._commands.execute(("MGET", *map(self._key_for, asked)))
            updates = []
            for number, (task_id, value) in enumerate(zip(asked, values, strict=True), 1):
                if number % _PER_TURN == 0:
                    await asyncio.sleep(0)
                update = await self._decode(task_id, value) if value is not None else None
                if isinstance(update, TaskUpdate):
                    if update.state == SUCCESS or task_id not in only_success:
                        updates.append(update)
                elif update is not None and task_id not in only_success:
                    self._fail(task_id, update)
            if self._subscriber is not None and not all(update.final for update in updates):
                with suppress(RedisError):  # what is on its way is older than what was read
                    await self._subscriber.catch_up()
            for update in updates:
                if update.final or self._is_news(update, known[update.task_id]):
                    self._deliver(update)

    def _latest(self, task_id: str) -> TaskUpdate | None:
        outcome = self._pending.get(task_id)
        return outcome.update if outcome is not None else None

    def _is_news(self, update: TaskUpdate, known: TaskUpdate | None) -> bool:
        latest = self._latest(update.task_id)
        return latest is known and (latest is None or latest.meta != update.meta)

    # The connection.

    def connected(self, subscriber: RedisSubscriber) -> None:
        """Subscribe to what is watched."""
        for watch in self._watches:
            subscriber.subscribe(watch.channel)

    def lost(self, error: RedisError) -> None:
        """Learn that nothing is announced any more."""
        unfinished = self._watches.unfinished
        for watch in unfinished:
            watch.read = None  # what is stored from now on is not announced to us
        logger.log(logging.WARNING if unfinished else logging.DEBUG, "%s", error)
        self._recover_soon()

    def _recover_soon(self) -> None:
        if not self._closed and self._recovery is None and self._watches.unread:
            self._recovery = self._loop.create_task(
                self._recover(), name="bridgetask Redis recovery"
            )

    async def _recover(self) -> None:
        """Connect, subscribe and read again, by Celery's retry policy for its backend."""
        retries, began = 0, self._loop.time()
        policy = self._retry
        try:
            while self._watches.unread:
                await asyncio.sleep(policy.interval(retries) * random.uniform(0.8, 1.2))
                retries += 1
                reads = {self._read_again(watch) for watch in self._watches.unread}
                try:
                    for read in reads:  # one for all of them, or none where nobody asks any more
                        await read.wait()
                        logger.info("Receiving results from %s again", self._subscriptions.address)
                except BridgetaskError as error:
                    logger.warning("%s", error)
                    if not policy.allows(retries, self._loop.time() - began):
                        self._watches.give_up(error)
                else:
                    retries, began = 0, self._loop.time()
        finally:
            self._recovery = None

    async def close(self) -> None:
        """Disconnect."""
        tasks = self._cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self._subscriptions.leave(self)
        await self._commands.close()

    def abort(self) -> None:
        self._cancel()
        self._subscriptions.abort()
        self._commands.abort()

    def _cancel(self) -> list[asyncio.Task[None]]:
        self._closed = True
        self._decoding.close()
        running = [task for task in (self._reading, self._recovery) if task is not None]
        for task in running:
            task.cancel()
        return running


def _steps(write: StoreWrite) -> tuple[tuple[object, ...], ...]:
    if len(write.commands) == 1:
        return write.commands
    return (("MULTI",), *write.commands, ("EXEC",))
