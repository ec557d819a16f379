"""The parts that build and read the messages of one client."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .control import ControlMailbox
from .recorder import Recorder
from .results import ResultDecoder

if TYPE_CHECKING:
    from celery import Celery

__all__ = ["Codec"]


@dataclass(frozen=True, slots=True)
class Codec:
    """The parts that build and read a client's messages. They belong to no event loop."""

    app: Celery
    recorder: Recorder
    decoder: ResultDecoder
    mailbox: ControlMailbox
