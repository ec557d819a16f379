from __future__ import annotations

from ..asyncio_impl import test_client
from .portable import ported

globals().update(
    ported(
        test_client,
        but={
            "test_task_sent_events_go_out",  # to a queue, which has none of them here
        },
    )
)
