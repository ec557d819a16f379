"""The client for Twisted: the same calls, as Deferreds, on any reactor."""

from __future__ import annotations

from .client import CeleryClient, DeferrableTask, DeferredSignature, TwistedCelery
from .deferred import install
from .result import DeferredTask, TaskRevoked

__all__ = [
    "CeleryClient",
    "DeferrableTask",
    "DeferredSignature",
    "DeferredTask",
    "TaskRevoked",
    "TwistedCelery",
    "install",
]
