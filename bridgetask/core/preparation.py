"""What must be done before a message is published: receiving its answer, writes, declarations."""

from __future__ import annotations

from .publishing import Publisher, Sending
from .receiving import Receiver, ResultStore

__all__ = ["Preparation"]


class Preparation:
    """Does what must precede messages, once for as many of them as it serves.

    :param store: where what a message requires is written, if anything does.
    """

    def __init__(self, publisher: Publisher, store: ResultStore | None) -> None:
        self._publisher = publisher
        self._store = store
        #: The receiver that was prepared last, and the last message that it was prepared for.
        self._prepared: tuple[Receiver | None, int] = None, -1

    def is_done(self, sending: Sending) -> bool:
        """Tell whether nothing is left to be done for a message."""
        return (
            not sending.message.requires
            and self.lets_answers_in(sending)
            and self._publisher.ready(sending.message)
        )

    def lets_answers_in(self, sending: Sending) -> bool:
        """Tell whether the answer to a message can be received."""
        receiver = sending.receiver
        if receiver is None or receiver.ready:
            return True
        prepared, newest = self._prepared
        return receiver is prepared and sending.number <= newest

    async def make(self, sending: Sending, newest: int) -> None:
        """Do all that must precede a message.

        :param newest: the number of the last message that waits by now. What is prepared for one
            serves for all up to that.
        :raises BridgetaskError: that was not possible.
        """
        if sending.receiver is not None and not self.lets_answers_in(sending):
            await sending.receiver.prepare()
            self._prepared = sending.receiver, newest
        message = sending.message
        if message.requires and self._store is not None:
            await self._store.write(message.requires)
            message.requires = ()  # a message that goes again must not undo what followed it
        await self._publisher.prepare(message)
