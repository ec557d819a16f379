"""Names that the client had, for modules that do not yet go by its calls and sessions."""

from __future__ import annotations

import asyncio
from typing import Any

from ..wire.codec import Wire
from .calls import Calls
from .handle import OnCancel
from .session import Connect, Session
from .sessions import Sessions


class FormerNames:
    """Where each name went."""

    _calls: Calls
    _sessions: Sessions

    @property
    def _session(self) -> Session | None:
        return self._sessions.current

    @property
    def _wire(self) -> Wire:
        return self._sessions.wire

    @property
    def _reply_to(self) -> str:
        return self._sessions.wire.recorder.reply_to

    @property
    def _connect(self) -> Connect:
        return self._sessions.connect

    @_connect.setter
    def _connect(self, connect: Connect) -> None:
        self._sessions.connect = connect

    @property
    def _closed(self) -> bool:
        return self._sessions.closed

    @_closed.setter
    def _closed(self, closed: bool) -> None:
        self._sessions.closed = closed

    @property
    def _background(self) -> set[asyncio.Task[None]]:
        session = self._sessions.current
        return session._background if session is not None else set()

    def _running_session(self) -> Session:
        return self._sessions.running()

    def _session_on(self, loop: asyncio.AbstractEventLoop) -> Session:
        return self._sessions.on(loop)

    def _check_open(self) -> None:
        self._sessions.check_open()

    def _pop_on_cancel(self, options: dict[str, Any]) -> OnCancel:
        return self._calls._pop_on_cancel(options)
