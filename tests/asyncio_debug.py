"""asyncio's debug mode, without most of what it costs.

It notes where each future, task and callback was made, to say so when one of them goes wrong: for a
future the whole stack, for which it looks at every file's time of change. That was half of what the
suite took. What debug mode checks does not depend on it, and a few frames tell as well.
"""

from __future__ import annotations

import asyncio.constants
import linecache
import traceback
from typing import Any

__all__ = ["keep_short_stacks"]

#: How many frames are kept.
DEPTH = 3


def keep_short_stacks() -> None:
    """Let all that is made from now on keep :data:`DEPTH` frames."""
    asyncio.constants.DEBUG_STACK_DEPTH = DEPTH  # of callbacks and coroutines
    # Of futures and tasks: asyncio's part in C holds this function, and calls it without arguments.
    extract_stack: Any = traceback.extract_stack
    extract_stack.__defaults__ = (None, DEPTH)
    # No source changes while the tests run.
    linecache.checkcache = lambda filename=None: None
