from __future__ import annotations

from ..asyncio_impl import test_events
from .portable import ported

globals().update(
    ported(
        test_events,
        but={
            # It publishes to an exchange that it does not declare, which Redis takes for another.
            "test_what_cannot_be_read_is_logged_and_harms_nobody",
        },
    )
)
