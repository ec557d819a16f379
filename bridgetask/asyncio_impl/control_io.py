"""Does the I/O of Celery's control: sends commands, waits for replies, empties queues."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any

from ..core.outcomes import Outcome
from ..errors import NotRoutable
from ..wire.control import Command, Purge
from ..wire.results import STARTED, revoked_here
from .session import Session

__all__ = ["perform"]


async def perform(session: Session, conversation: Generator[Command | Purge, Any, Any]) -> Any:
    """Do the I/O that a conversation yields, one after the other; return what it returns.

    :param conversation: see :meth:`bridgetask.wire.control.ControlMailbox.converse`.
    :raises NotRoutable: no worker is up to hear a command.
    :raises SendError: a command could not be sent.
    :raises ResultUnavailable: the connection was lost while replies were awaited.
    """
    answer: Any = None
    while True:
        try:
            request = conversation.send(answer)
        except StopIteration as returned:
            return returned.value
        if isinstance(request, Purge):
            answer = await session.purge(request)
        else:
            answer = await (_tell if request.ticket is None else _ask)(session, request)


async def _tell(session: Session, command: Command) -> list[dict[str, Any]] | None:
    try:
        await session.command(command.message, replies=False)
    except NotRoutable as error:
        raise NotRoutable(f"no worker is up to hear {command.name!r}: {error}") from None
    _resolve_revoked(session, command)
    return None


async def _ask(session: Session, command: Command) -> list[dict[str, Any]] | None:
    with session.replies.expect(command, session.workers) as replies:
        try:
            receivers = await session.command(command.message, replies=True)
        except NotRoutable:
            return []  # no worker is up, so none replies
        replies.settle_for(command.enough(receivers))
        _resolve_revoked(session, command)
        return await replies.wait(command.timeout)


def _resolve_revoked(session: Session, command: Command) -> None:
    """Resolve results that are awaited here; a worker reports nothing before the task's turn."""
    for outcome in _revoked(session, command):
        running = outcome.update is not None and outcome.update.state == STARTED
        if outcome.final is None and (command.arguments.get("terminate") or not running):
            outcome.apply(revoked_here(outcome.task_id))


def _revoked(session: Session, command: Command) -> Iterator[Outcome]:
    """Yield the outcomes of those tasks that a command revokes, and that have handles here."""
    for task_id in command.revoked_ids:
        outcome = session.pending.get(task_id)
        if outcome is not None:
            yield outcome
    if command.revokes_by_stamps:
        for outcome in session.pending:
            if outcome.stamps and command.revokes(outcome.stamps):
                yield outcome
