"""Commands to workers, awaitable. Follows ``celery.app.control.Control``."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from ..wire.results import STARTED, revoked_here

if TYPE_CHECKING:
    from .client import Client

__all__ = ["Control"]


class Control:
    """Remote control of the workers.

    Made by :attr:`bridgetask.Client.control`.
    """

    def __init__(self, client: Client) -> None:
        self._client = client

    async def revoke(
        self,
        task_id: str | Sequence[str],
        destination: Sequence[str] | None = None,
        terminate: bool = False,
        signal: str | None = None,
    ) -> None:
        """Tell workers not to run one task or several, as ``Control.revoke`` does.

        Returns once the broker has taken the command. Cancelling this leaves it open whether the
        command goes out. Results of these tasks that are awaited here resolve as revoked, except
        for tasks that are known to run already, unless ``terminate``.

        :param destination: names of the workers to tell; None tells all.
        :param terminate: whether to kill the process that runs a task, too.
        :param signal: the signal for that; ``TERM`` unless given.
        :raises SendError: the command could not be sent.
        """
        ids = [task_id] if isinstance(task_id, str) else list(task_id)
        session = self._client._running_session()
        message = self._client._wire.mailbox.command(
            "revoke",
            {
                "task_id": task_id if isinstance(task_id, str) else ids,
                "terminate": terminate,
                "signal": signal or "SIGTERM",
            },
            destination=destination,
        )
        await session.command(message)
        for each in ids:
            outcome = session.pending.get(each)
            if outcome is None or outcome.final is not None:
                continue
            running = outcome.update is not None and outcome.update.state == STARTED
            if terminate or not running:
                outcome.apply(revoked_here(each))

    async def ping(
        self,
        destination: Sequence[str] | None = None,
        timeout: float = 1.0,
        limit: int | None = None,
    ) -> list[dict[str, Any]]:
        """Ask workers whether they are there, as ``Control.ping`` does.

        Returns as soon as every worker named in ``destination`` has answered, or ``limit`` have.

        :param destination: names of the workers to ask; None asks all.
        :param timeout: seconds to wait for replies, from when the broker has the question.
        :param limit: how many replies are enough.
        :returns: ``[{"worker@host": {"ok": "pong"}}, ...]``; empty if nobody answered in time.
        :raises SendError: the question could not be sent.
        """
        return await self._ask("ping", {}, destination, timeout, limit)

    async def _ask(
        self,
        command: str,
        arguments: dict[str, Any],
        destination: Sequence[str] | None,
        timeout: float,
        limit: int | None,
    ) -> list[dict[str, Any]]:
        session = self._client._running_session()
        ticket = str(uuid4())
        message = self._client._wire.mailbox.command(
            command, arguments, destination=destination, ticket=ticket, timeout=timeout
        )
        enough = limit if limit is not None else len(destination or ()) or None
        replies: list[dict[str, Any]] = []
        complete = asyncio.Event()

        def on_reply(said: Any) -> None:
            replies.append(said)
            if enough is not None and len(replies) >= enough:
                complete.set()

        await session.listen_for_replies()
        session.on_reply(ticket, on_reply)
        try:
            await session.command(message)
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await complete.wait()
        finally:
            session.on_reply(ticket, None)
        return replies
