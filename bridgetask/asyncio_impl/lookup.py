"""Handles of calls that were made elsewhere, from an id or from what ``as_tuple`` gave."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..errors import ResultUnavailable, ResultUndecodable
from ..wire.codec import Codec
from ..wire.results import result_tree
from .group import GroupResult
from .handle import Caller, Handle
from .members import Members
from .result import AsyncResult
from .session import Session

__all__ = ["Lookup"]


@dataclass(slots=True)
class Lookup:
    """Makes handles of calls that were made elsewhere, or here, and their handles dropped."""

    caller: Caller
    session: Session
    codec: Codec

    def by_id(
        self, task_id: str, *, parent: Handle | None = None, called_by_task: bool = False
    ) -> AsyncResult[Any]:
        """Return the handle of a task.

        :param called_by_task: whether another task of this client called it.
        """
        outcome = self.session.pending.register(task_id)
        backend = self.session.backend
        no_result = backend.unavailable
        linked = called_by_task and self.codec.recorder.links_used
        if outcome.delivery is None and not linked and not backend.capabilities.stores:
            no_result = no_result or "rpc:// delivers results only to the client that sent the task"
        return AsyncResult(
            self.caller,
            self.session,
            outcome,
            parent=parent,
            delivery=outcome.delivery,
            no_result=no_result,
        )

    def of_tree(self, encoded: Any) -> Handle:
        """Return the handle of a task or a group, with those of its parents and members.

        :param encoded: what ``as_tuple`` of a result of Celery's gives.
        :raises ResultUndecodable: it is something else.
        """
        node_id, encoded_parent, encoded_members = result_tree(encoded)
        parent = self.of_tree(encoded_parent) if encoded_parent else None
        if encoded_members is None:
            return self.by_id(node_id, parent=parent, called_by_task=True)
        members = Members()
        members.extend([self.of_tree(each) for each in encoded_members])
        members.close()
        return GroupResult(self.caller, self.session, node_id, members, parent=parent)

    async def stored_group(self, group_id: str) -> GroupResult:
        """Return the handle of a group that was saved; see ``bridgetask.Client.group_result``."""
        store = self.session.group_store(group_id)
        stored = await store.read(self.codec.recorder.backend.get_key_for_group(group_id))
        if stored is None:
            raise ResultUnavailable(f"no group {group_id} is stored", task_id=group_id)
        group = self.of_tree(self.codec.decoder.decode_group(stored, group_id))
        if not isinstance(group, GroupResult):
            raise ResultUndecodable("what is stored is no group", task_id=group_id)
        return group
