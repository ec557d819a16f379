from __future__ import annotations

import time

import pytest
from blockbuster import BlockingError

from bridgetask import Client


async def test_a_call_of_bridgetask_that_blocks_the_loop_is_refused(client: Client) -> None:
    with pytest.raises(BlockingError):
        client._wire.recorder.record(lambda _: time.sleep(0.001))
