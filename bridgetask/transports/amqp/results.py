"""Results by ``rpc://``: one reply queue and one consumer for all that a client sends.

The queue has a name of our own, is durable, neither exclusive nor auto-delete, and expires after it
has had no consumer for a while. So it keeps the results that workers send while the connection is
down. A result that comes twice does no harm.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from ...core.decoding import Decoding
from ...core.outcomes import PendingResults
from ...wire.message import Declaration, Properties
from ...wire.results import ResultDecoder
from .connection import AmqpConnection
from .consumer import AmqpConsumer

__all__ = ["RpcResults"]


class RpcResults:
    """Receives results in a reply queue of our own.

    :param address: the queue's name, which messages carry as ``reply_to``.
    :param expires: seconds after which RabbitMQ deletes the queue if nobody consumes it.
    """

    def __init__(
        self,
        connection: AmqpConnection,
        address: str,
        expires: float,
        decoder: ResultDecoder,
        pending: PendingResults,
        decoding: Decoding,
    ) -> None:
        self._decoder = decoder
        self._pending = pending
        self._decoding = decoding
        decoding.on_full, decoding.on_room = connection.hold, connection.release
        arguments = {"x-expires": int(expires * 1000)}
        declaration = Declaration.of(
            "queue_declare",
            address,
            {
                "durable": True,
                "exclusive": False,
                "auto_delete": False,
                "passive": False,
                "arguments": arguments,
            },
        )
        self._consumer = AmqpConsumer(
            connection,
            address,
            (declaration,),
            self._on_message,
            # Linked tasks may report before anybody has asked for their results.
            wanted=lambda: pending.expects_links or pending.unfinished > 0,
        )

    def expect(self, task_ids: Sequence[str]) -> None:
        """Do nothing: the queue is the same for all tasks."""

    async def settle(self) -> None:
        """Do nothing: what workers will still send is not known."""

    @property
    def ready(self) -> bool:
        return self._consumer.consuming

    async def prepare(self) -> None:
        await self._consumer.start()

    async def close(self) -> None:
        """Stop, and delete the queue: nobody will ask for the results that still come."""
        await self._consumer.close()
        self._decoding.close()

    def abort(self) -> None:
        self._consumer.abort()
        self._decoding.close()

    def _on_message(self, body: bytes, properties: Properties) -> None:
        self._decoding.take(
            partial(self._decoder.decode, body, properties),
            properties.correlation_id,
            partial(self._pending.deliver, size=len(body)),
            self._pending.deliver_undecodable,
            size=len(body),
            slow=self._decoder.is_slow(body, properties.headers),
        )
