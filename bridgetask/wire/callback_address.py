"""The address that the results of linked tasks are sent to."""

from __future__ import annotations

from typing import Any

from celery.canvas import Signature

__all__ = ["CallbackAddress"]


class CallbackAddress:
    """Writes a ``reply_to`` on linked tasks that have none.

    Celery writes none, so workers send the results of linked tasks to themselves (celery issue
    6107).

    :param address: the address; None leaves linked tasks as they are, since stored results are
        found without one.
    """

    def __init__(self, address: str | None) -> None:
        self._address = address
        #: Whether any message had linked tasks, whose results come here as well.
        self.was_written: bool = False

    def write_on(self, body: Any) -> None:
        """Write the address on the tasks that are linked in the body of a task's message.

        :param body: by task protocol 1 or 2.
        """
        if self._address is None:
            return
        embedded = body if isinstance(body, dict) else body[2]
        self.was_written |= bool(embedded.get("callbacks") or embedded.get("errbacks"))
        for link in ("callbacks", "errbacks", "chain"):
            if embedded.get(link):
                embedded[link] = self._addressed(embedded[link])

    def _addressed(self, signatures: Any) -> Any:
        """Return a copy of a signature, or of a list of signatures, with the address."""
        if isinstance(signatures, (list, tuple)):
            return type(signatures)(map(self._addressed, signatures))
        # Pickle writes signatures and dicts in different ways. Neither copy evaluates lazy members.
        copied = (Signature if isinstance(signatures, Signature) else dict)(signatures)
        options = dict(copied.get("options") or {})
        options.setdefault("reply_to", self._address)
        for link in ("link", "link_error"):
            if options.get(link):
                options[link] = self._addressed(options[link])
        copied["options"] = options
        return copied
