"""What is in a message: every serialiser with every compression."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from itertools import product
from typing import Any
from uuid import UUID

import pytest
from kombu.compression import encoders

from .comparison import NOW
from .conftest import MakeDifferential
from .options import COMPRESSIONS, SERIALIZERS

#: Positional arguments, as plain as JSON and not.
CONTENTS: dict[str, tuple[Any, ...]] = {
    "nothing": (),
    "plain": (1, -2.5, "ä € \U0001f40d", None, True, [1, [2]], {"k": {"n": 1}}),
    "large": ("x" * 140_000,),  # more than fits a frame
    "objects": (NOW, date(2030, 1, 1), Decimal("1.10"), UUID(int=7)),
    "bytes": (b"\x00\xff",),
    "sets": ({1}, frozenset({2})),
    "nothing that can be sent": (object(),),
}


@pytest.mark.parametrize("protocol", [1, 2])
@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_contents_are_the_same(
    differential: MakeDifferential, serializer: str, protocol: int
) -> None:
    """Each kind of content, with each serialiser and each compression as options of the call."""
    compared = differential(task_protocol=protocol)
    for compression, contents in product((None, *COMPRESSIONS), CONTENTS):
        options = {"serializer": serializer, "compression": compression}
        arguments = {"args": CONTENTS[contents], "kwargs": {"x": CONTENTS[contents]}}
        compared.compare_task("plain", **options, **arguments)


@pytest.mark.parametrize("compression", [None, *COMPRESSIONS])
@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_contents_are_the_same_by_settings(
    differential: MakeDifferential, serializer: str, compression: str | None
) -> None:
    """The serialiser and the compression as settings, and options of a task going before them."""
    compared = differential(task_serializer=serializer, task_compression=compression)
    for name in ("plain", "options"):
        compared.compare_task(name, args=CONTENTS["plain"])
        compared.compare_task(compared.app.tasks[name], args=CONTENTS["plain"])


def test_every_compression_that_kombu_knows_is_at_hand() -> None:
    names = ("gzip", "x-bz2", "x-lzma", "x-brotli", "zstd", "x-mirrored")
    assert {f"application/{name.replace('gzip', 'x-gzip')}" for name in names} <= set(encoders())
