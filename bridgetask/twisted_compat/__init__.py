"""The client for Twisted: the same calls, as Deferreds, on any reactor."""

from __future__ import annotations

from .client import CeleryClient, DeferrableTask, DeferredSignature, TwistedCelery
from .control import DeferredEvents, TwistedControl, TwistedInspect
from .deferred import install
from .result import DeferredTask, TaskRevoked

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
