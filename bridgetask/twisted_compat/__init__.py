"""The client for Twisted: the same calls, as Deferreds, on any reactor."""

from __future__ import annotations

from .asyncio_reactor import install
from .client import TwistedCelery
from .control import TwistedControl, TwistedInspect
from .decorator import CeleryClient, DeferrableTask
from .events import DeferredEvents
from .result import DeferredTask, TaskRevoked
from .signatures import DeferredSignature

__all__ = [
    "CeleryClient",
    "DeferrableTask",
    "DeferredEvents",
    "DeferredSignature",
    "DeferredTask",
    "TaskRevoked",
    "TwistedCelery",
    "TwistedControl",
    "TwistedInspect",
    "install",
]
