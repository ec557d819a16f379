"""What each optimisation of the hot path gains: bursts and sends, with each of them undone alone.

``python -m benchmarks.gains --document`` writes the table of docs/performance.md.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

from . import document
from .clients import CLIENTS
from .harness import broker, medians, replier, rounds

__all__ = ["UNDO", "undo"]

_PREFIX = "bridgetask, without "
_WORKLOADS = [
    ("burst", {"count": 3000, "window": 1000}),
    ("send", {"count": 3000, "window": 1000}),
]


def undo(what: str) -> None:
    """Undo an optimisation in this process."""
    UNDO[what]()


def _replace(owner: Any, name: str, value: Any) -> None:
    """Replace an attribute for good.

    :raises AttributeError: there is none of that name any more, so there is nothing undone.
    """
    patch.object(owner, name, value).start()


def _templates() -> None:
    from bridgetask.wire import templates

    _replace(templates, "_kind", lambda *_: None)


def _encoded_properties() -> None:
    from bridgetask.transports.amqp.properties import PropertiesEncoder, encode_properties

    def encode_anew(_: PropertiesEncoder, message: Any) -> bytes:
        return encode_properties(message.properties)

    _replace(PropertiesEncoder, "encode", encode_anew)


def _settings() -> None:
    from bridgetask.wire.configuration import ConfigurationView

    _replace(ConfigurationView, "_get", lambda self, name: getattr(self._app.conf, name))


def _plain_repr() -> None:
    from celery.utils.saferepr import saferepr

    from bridgetask.wire import amqp_view, template

    _replace(template, "plain_repr", saferepr)
    _replace(amqp_view, "plain_repr", saferepr)


def _one_write() -> None:
    from bridgetask.transports.amqp.direct import DirectPublisher

    publish = DirectPublisher.publish

    def publish_at_once(self: DirectPublisher, sending: Any) -> None:
        publish(self, sending)
        self.flush()

    _replace(DirectPublisher, "publish", publish_at_once)


def _one_acknowledgement() -> None:
    from bridgetask.transports.amqp.direct import DirectConsumer

    hand_over = DirectConsumer._hand_over

    def hand_over_and_acknowledge(self: DirectConsumer, message: Any) -> None:
        self._call_soon, call_soon = (lambda _: None), self._call_soon  # type: ignore[assignment]
        hand_over(self, message)
        self._call_soon = call_soon
        self._acknowledge()

    _replace(DirectConsumer, "_hand_over", hand_over_and_acknowledge)


def _known_properties() -> None:
    from bridgetask.transports.amqp import frames

    _replace(frames, "_LONGEST_KNOWN", -1)


def _no_task_a_result() -> None:
    from bridgetask.core.decoding import Decoding

    take = Decoding.take

    async def take_later(*args: Any, **options: Any) -> None:
        take(*args, **options)

    def take_in_a_task(self: Decoding, *args: Any, **options: Any) -> None:
        task = self._loop.create_task(take_later(self, *args, **options))
        _TASKS.add(task)
        task.add_done_callback(_TASKS.discard)

    _replace(Decoding, "take", take_in_a_task)


_TASKS: set[asyncio.Task[None]] = set()

#: What can be undone. Undoing what only counts within another one leaves that one in place.
UNDO: dict[str, Callable[[], None]] = {
    "templates of messages": _templates,
    "properties encoded by a template": _encoded_properties,
    "a shorter way to settings": _settings,
    "a shorter way to show arguments": _plain_repr,
    "all messages of a turn in one write": _one_write,
    "one acknowledgement a turn": _one_acknowledgement,
    "results' properties remembered": _known_properties,
    "results decoded without a task each": _no_task_a_result,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--document", action="store_true", help="write the documentation's table")
    arguments = parser.parse_args()
    whole, plain = "bridgetask", "bridgetask, plain aio-pika"
    CLIENTS.update(
        {
            _PREFIX + what: CLIENTS[whole].with_environment(BRIDGETASK_BENCHMARKS_UNDO=what)
            for what in UNDO
        }
    )
    names = [whole, *(name for name in CLIENTS if name.startswith(_PREFIX)), plain]
    with broker() as url, replier(url):
        found = rounds(names, url, _WORKLOADS, arguments.rounds)
    cpu = {
        name: [medians(found[name][workload])["cpu_us"] for workload, _ in _WORKLOADS]
        for name in names
    }
    rows = []
    for name in names:
        what = "messages past aiormq" if name == plain else name.removeprefix(_PREFIX)
        cells = [what if name != whole else "*all of them in place*"]
        for without, base in zip(cpu[name], cpu[whole], strict=True):
            gain = f" ({1 - base / without:.0%})" if name != whole else ""
            cells.append(f"{without:.1f}{gain}")
        rows.append(cells)
    titles = ["without", "burst: CPU µs a task (gain)", "sends: CPU µs (gain)"]
    table = document.table(titles, rows)
    print(table)
    if arguments.document:
        document.write_tables({"gains": table})


if __name__ == "__main__":
    main()
