from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from blockbuster import BlockingError

from bridgetask import Client


def wait_for_a_lock() -> None:
    held = threading.Lock()
    held.acquire()
    held.acquire(timeout=0.001)


@pytest.mark.parametrize("block", [lambda: time.sleep(0.001), wait_for_a_lock])
async def test_a_call_of_bridgetask_that_blocks_the_loop_is_refused(
    client: Client, block: Callable[[], Any]
) -> None:
    with pytest.raises(BlockingError):
        client._sessions.codec.recorder.record(lambda _: block())


@pytest.mark.blocks
async def test_a_test_may_say_that_it_blocks(client: Client) -> None:
    client._sessions.codec.recorder.record(lambda _: wait_for_a_lock())
