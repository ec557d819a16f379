"""Linked tasks: the one thing that bridgetask says differently, and only with ``rpc://``.

Workers would send the results of linked tasks to themselves (celery issue 6107). bridgetask tells
them to send those to the client.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from celery.canvas import Signature, chain, chord, group
from kombu.utils.functional import maybe_list
from kombu.utils.json import dumps, loads

from .comparison import ADDRESS, DEFAULT_QUEUE, Options
from .conftest import MakeDifferential
from .options import SERIALIZERS

_PLAIN = Signature("linked", (1,), {"n": 2}, {"queue": "other", "priority": 3})
_NESTED = Signature("outer", (), {}, {"link": [_PLAIN, dict(_PLAIN)], "link_error": _PLAIN})
_ADDRESSED = Signature("linked", (), {}, {"reply_to": "somebody else"}, immutable=True)
LINKS: list[Any] = [
    _PLAIN,
    [_PLAIN, _NESTED],
    dict(_PLAIN),
    _NESTED,
    dict(_NESTED, options={"link": dict(_PLAIN)}),
    _ADDRESSED,
    chain(_PLAIN, _NESTED),
    group([_PLAIN, _PLAIN]),
    chord([_PLAIN, _PLAIN], _NESTED),
]


@pytest.mark.parametrize("protocol", [1, 2])
@pytest.mark.parametrize("backend", ["rpc://", "disabled://"])
@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_linked_tasks_are_the_same(
    differential: MakeDifferential, serializer: str, backend: str, protocol: int
) -> None:
    compared = differential(
        result_backend=backend, task_serializer=serializer, task_protocol=protocol
    )
    plain = compared.app.tasks["plain"]
    # Celery's message can't be read: msgpack asks a group for its length, and gets its members'.
    links = [each for each in LINKS if serializer != "msgpack" or not isinstance(each, group)]
    for link in links:
        for options in ({"link": link}, {"link_error": link}, {"link": link, "link_error": link}):
            compared.compare_task("plain", **options)
            compared.compare_task(plain, **options)
            compared.compare_task(plain.s(1), **options, compression="gzip")
            compared.compare_task(plain.s(1).set(**options))


@pytest.mark.parametrize(
    "options", [{"link": [_PLAIN, _ADDRESSED]}, {"link_error": _NESTED}], ids=["link", "link_error"]
)
def test_they_are_told_where_to_reply_and_nothing_else(
    differential: MakeDifferential, options: Options
) -> None:
    """Celery's body, with an address added to each linked task that has none, is ours."""
    compared = differential()
    (theirs, _), (ours, _) = compared.make(lambda client: client.send_task("plain", **options))
    (their_message,), (our_message,) = theirs[DEFAULT_QUEUE], ours[DEFAULT_QUEUE]
    assert replace(our_message, body=b"") == replace(their_message, body=b"")
    assert our_message.body != their_message.body

    *arguments, embedded = loads(their_message.body)
    for link in ("callbacks", "errbacks"):
        address(embedded[link])
    assert our_message.body == dumps([*arguments, embedded]).encode()


def address(signatures: Any) -> None:
    """Give linked tasks the client's address, in place."""
    for each in maybe_list(signatures) or ():
        each["options"].setdefault("reply_to", ADDRESS.decode())
        for link in ("link", "link_error"):
            address(each["options"].get(link))
