from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from bridgetask import Client, InvalidOption, ResultUnavailable

from .. import tasks
from ..fix_rabbitmq import close_celery, make_app


async def test_values_come_in_the_order_of_the_items(client: Client) -> None:
    items = [0.2, 0.0, 0.1]
    mapped = client.map(tasks.identity, items, limit=3)
    assert [value async for value in mapped] == items


async def test_values_come_as_they_are_there_where_order_does_not_matter(client: Client) -> None:
    mapped = client.map(tasks.nap, [0.8, 0.0, 0.1], limit=3, ordered=False)
    assert [value async for value in mapped] == [0.0, 0.1, 0.8]


async def test_no_more_than_the_limit_are_in_flight(client: Client) -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(50):
            taken.append(number)
            yield number

    for ordered in (True, False):
        taken.clear()
        got = 0
        async for _ in client.map(tasks.identity, items(), limit=7, ordered=ordered):
            got += 1
            assert len(taken) - got <= 7
        assert got == 50


async def test_an_asynchronous_iterable_is_mapped(client: Client) -> None:
    async def items() -> AsyncIterator[int]:
        for number in range(3):
            await asyncio.sleep(0)
            yield number

    assert [value async for value in client.map(tasks.identity, items())] == [0, 1, 2]


async def test_options_and_signatures_are_taken(client: Client) -> None:
    mapped = client.map(tasks.add.s(10), [1, 2], priority=3)
    assert [value async for value in mapped] == [11, 12]


async def test_an_exception_ends_the_iteration_or_is_yielded(client: Client) -> None:
    kinds = ["ValueError", "ComplexError"]
    with pytest.raises(ValueError):
        async for _ in client.map(tasks.fail, kinds):
            pass
    errors = [each async for each in client.map(tasks.fail, kinds, return_exceptions=True)]
    assert [type(each).__name__ for each in errors] == ["ValueError", "TypeError"]


async def test_leaving_early_revokes_what_is_in_flight_if_asked_to(client: Client) -> None:
    mapped = client.map(tasks.nap, [0.0] + [0.5] * 5, limit=6, on_cancel="revoke")
    async for value in mapped:
        assert value == 0.0
        break
    session = client._sessions.running()
    in_flight = {each.task_id for each in session.pending if not each.done}
    assert len(in_flight) == 5
    await mapped.aclose()  # type: ignore[attr-defined]
    while session._background:
        await asyncio.wait(session._background)
    (revoked,) = (await client.control.inspect().revoked()).values()
    assert in_flight <= set(revoked)


@pytest.mark.parametrize("limit", [0, -1, 1.5, None])
async def test_a_limit_that_is_no_positive_number_is_refused(client: Client, limit: int) -> None:
    with pytest.raises(InvalidOption, match="limit: must be"):
        async for _ in client.map(tasks.add, [1], limit=limit):
            pass


async def test_mapping_without_a_result_backend_is_refused(broker_url: str) -> None:
    app = make_app("none", broker_url, backend=None, task_default_queue="map-nobody")
    async with Client(app) as client:
        with pytest.raises(ResultUnavailable, match="no result backend"):
            async for _ in client.map(app.signature("x"), [1]):
                pass
    close_celery(app)
