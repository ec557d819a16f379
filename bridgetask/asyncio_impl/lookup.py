"""Handles of what was sent elsewhere: by an id, or by what ``as_tuple`` left of a result."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import ResultUnavailable, ResultUndecodable
from ..wire.results import result_tree
from .group import GroupResult
from .result import AnyResult, AsyncResult
from .session import Session

if TYPE_CHECKING:
    from .client import Client

__all__ = ["handle_by_id", "handle_of_tree", "stored_group"]


def handle_by_id(
    client: Client,
    session: Session,
    task_id: str,
    *,
    parent: AnyResult | None = None,
    called_by_task: bool = False,
) -> AsyncResult[Any]:
    """Return the handle of a task that this client did not send, or does not hold any more.

    :param called_by_task: whether another task of this client called it.
    """
    outcome = session.pending.register(task_id)
    backend = session.backend
    no_result = backend.unavailable
    linked = called_by_task and client._codec.recorder.links_used
    if outcome.delivery is None and not linked and not backend.capabilities.stores:
        no_result = no_result or "rpc:// delivers results only to the client that sent the task"
    return AsyncResult(
        client, session, outcome, parent=parent, delivery=outcome.delivery, no_result=no_result
    )


def handle_of_tree(client: Client, session: Session, encoded: Any) -> AnyResult:
    """Return the handle of a task or a group, and those of its parents and members.

    :param encoded: what ``as_tuple`` of a result of Celery's gives.
    :raises ResultUndecodable: it is something else.
    """
    node_id, encoded_parent, members = result_tree(encoded)
    parent = handle_of_tree(client, session, encoded_parent) if encoded_parent else None
    if members is None:
        return handle_by_id(client, session, node_id, parent=parent, called_by_task=True)
    group = GroupResult(client, session, node_id, parent=parent)
    group._extend([handle_of_tree(client, session, member) for member in members])
    group._close(None)
    return group


async def stored_group(client: Client, session: Session, group_id: str) -> GroupResult:
    """Return the handle of a group that was saved; see :meth:`bridgetask.Client.group_result`."""
    store = session.group_store(group_id)
    codec = client._codec
    stored = await store.read(codec.recorder.backend.get_key_for_group(group_id))
    if stored is None:
        raise ResultUnavailable(f"no group {group_id} is stored", task_id=group_id)
    group = handle_of_tree(client, session, codec.decoder.decode_group(stored, group_id))
    if not isinstance(group, GroupResult):
        raise ResultUndecodable("what is stored is no group", task_id=group_id)
    return group
