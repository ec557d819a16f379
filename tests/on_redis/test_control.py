from __future__ import annotations

from ..asyncio_impl import test_control
from .portable import ported

globals().update(
    ported(
        test_control,
        but={
            # Redis says how many have heard a command: those are waited for, and no longer.
            "test_where_nobody_says_how_many_shall_answer_the_timeout_ends_it",
            "test_a_callback_gets_each_reply_as_it_comes",
            # It takes any queue, and replies come to another one.
            "test_a_queue_that_is_too_much_for_the_broker_is_refused_by_it",
            "test_a_reply_that_cannot_be_read_harms_nobody",
        },
    )
)
