"""Names that the client had, for tests that do not yet ask its sessions."""

from __future__ import annotations

from ..wire.codec import Codec
from .session import Session
from .sessions import Sessions

__all__ = ["FormerNames"]


class FormerNames:
    """Where each name went."""

    _sessions: Sessions

    @property
    def _session(self) -> Session | None:
        return self._sessions.current

    @property
    def _codec(self) -> Codec:
        return self._sessions.codec

    @property
    def _reply_to(self) -> str:
        return self._sessions.codec.recorder.reply_to

    def _running_session(self) -> Session:
        return self._sessions.running()
