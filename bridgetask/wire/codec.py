"""The parts that build and read the messages of one client."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..settings import Settings
from .compression import DEFAULT_LIMIT
from .control import ControlMailbox
from .recorder import Recorder
from .results import ResultDecoder

if TYPE_CHECKING:
    from celery import Celery

__all__ = ["Wire"]


@dataclass(frozen=True, slots=True)
class Wire:
    """The parts that build and read a client's messages. They belong to no event loop."""

    app: Celery
    settings: Settings
    recorder: Recorder
    decoder: ResultDecoder
    mailbox: ControlMailbox

    @classmethod
    def of(
        cls,
        app: Celery,
        reply_to: str,
        *,
        read_settings: Callable[..., Settings] = Settings.from_app,
        max_result_size: int = DEFAULT_LIMIT,
        **options: Any,
    ) -> Wire:
        """Read the app's configuration.

        :param reply_to: the address that workers shall send results to.
        :param read_settings: :meth:`bridgetask.settings.Settings.from_app`, or the like.
        :param max_result_size: bytes that a result may have, once it is decompressed.
        :param options: those of ``read_settings``.
        :raises InvalidOption: the configuration can't be used.
        """
        settings = read_settings(app, **options)
        recorder = Recorder(app, reply_to, backend=settings.results.backend)
        stored = recorder.backend if settings.results.stored else None
        decoder = ResultDecoder(app, stored, max_size=max_result_size)
        return cls(app, settings, recorder, decoder, ControlMailbox(app, recorder))
