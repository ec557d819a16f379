"""Results by ``rpc://`` over Redis: workers push them to the client's own list."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from ...core.decoding import Decoding
from ...core.outcomes import PendingResults
from ...errors import ResultUndecodable
from ...wire.results import ResultDecoder, TaskUpdate
from ...wire.virtual import Envelope
from .inbox import RedisInbox

__all__ = ["RedisRpcResults"]


class RedisRpcResults:
    """Receives results in the client's own list. It is deleted by who receives replies there, too.

    :param inbox: the list.
    """

    def __init__(
        self,
        inbox: RedisInbox,
        decoder: ResultDecoder,
        pending: PendingResults,
        decoding: Decoding,
    ) -> None:
        self._inbox = inbox
        self._decoder = decoder
        self._pending = pending
        self._decoding = decoding
        decoding.on_full, decoding.on_room = inbox.hold, inbox.release

    def expect(self, task_ids: Sequence[str]) -> None:
        """Do nothing: the list is the same for all tasks."""

    async def settle(self) -> None:
        """Do nothing: what workers will still push is not known."""

    @property
    def ready(self) -> bool:
        return self._inbox.consuming

    async def prepare(self) -> None:
        await self._inbox.start()

    @property
    def wanted(self) -> bool:
        """Whether results may come. Linked tasks may report when nobody has asked for them yet."""
        return self._pending.expects_links or self._pending.unfinished > 0

    def take(self, envelope: Envelope) -> None:
        """Deliver what a worker has pushed."""
        size = len(envelope.encoded)
        self._decoding.take(
            partial(self._decode, envelope),
            envelope.properties.correlation_id,
            partial(self._pending.deliver, size=size),
            self._pending.deliver_undecodable,
            size=size,
            slow=self._decoder.is_slow(envelope.encoded, envelope.properties.headers),
        )

    def _decode(self, envelope: Envelope, in_steps: bool) -> TaskUpdate:
        try:
            body = envelope.body()
        except ValueError as error:
            raise ResultUndecodable(
                f"the result can't be read: {error}", task_id=envelope.properties.correlation_id
            ) from error
        return self._decoder.decode(body, envelope.properties, in_steps)

    async def close(self) -> None:
        self._decoding.close()

    def abort(self) -> None:
        self._decoding.close()
