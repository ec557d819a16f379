"""Call Celery tasks from asyncio and Twisted, and get their results, without blocking."""

from __future__ import annotations

from .asyncio_impl.client import Client
from .asyncio_impl.control import Control
from .asyncio_impl.events import Events
from .asyncio_impl.group import AsCompleted, GroupResult
from .asyncio_impl.inspect import Inspect
from .asyncio_impl.result import AsyncResult
from .core.outcomes import Updates
from .errors import *  # noqa: F403
from .errors import __all__ as _errors
from .wire.results import TaskUpdate

__all__ = [
    "AsCompleted",
    "AsyncResult",
    "Client",
    "Control",
    "Events",
    "GroupResult",
    "Inspect",
    "TaskUpdate",
    "Updates",
    *_errors,
]

__version__ = "0.1.0"
