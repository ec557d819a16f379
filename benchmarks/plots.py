"""Draws what the README and the documentation show."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from .clients import CLIENTS
from .goals import figure

__all__ = ["draw"]

_OURS, _OTHERS, _BOUNDS = "#2a78b8", "#b8b8b8", "#dddddd"


def draw(found: dict[str, Any], folder: Path) -> None:
    """Write the plots of what was measured."""
    folder.mkdir(exist_ok=True)
    mpl.rcParams["svg.hashsalt"] = "bridgetask"  # the same figures make the same file
    for kind in ("rpc", "redis"):
        _bars(
            found,
            folder / f"round_trips_{kind}.svg",
            f"replier, {kind}",
            [
                ("round trips a second", "burst_1000", "per_second", "{:,.0f}".format),
                ("client CPU, µs a round trip", "burst_1000", "cpu_us", "{:,.0f}".format),
            ],
            f"1,000 calls at once, results by {'rpc://' if kind == 'rpc' else 'Redis'}",
        )
    _bars(
        found,
        folder / "sends.svg",
        "replier, rpc",
        [
            ("sends a second", "send", "per_second", "{:,.0f}".format),
            ("client CPU, µs a send", "send", "cpu_us", "{:,.0f}".format),
        ],
        "Sending only, pipelined",
    )
    _bars(
        found,
        folder / "stalls.svg",
        "replier, rpc",
        [
            ("99% of stalls, ms", "flood", "stall_p99_ms", "{:,.1f}".format),
            ("worst stall, ms", "flood", "stall_max_ms", "{:,.1f}".format),
        ],
        "The event loop's stalls, 10,000 calls in flight",
    )


def _bars(
    found: dict[str, Any],
    path: Path,
    setting: str,
    panels: list[tuple[str, str, str, Callable[[float], str]]],
    title: str,
) -> None:
    workload = panels[0][1]
    names = [
        name for name in CLIENTS if figure(found, setting, workload, name, panels[0][2]) is not None
    ]
    if not names:
        return
    drawn = Figure(figsize=(9, 0.7 + 0.3 * len(names)), layout="constrained")
    drawn.suptitle(title, fontsize=11)
    for place, (label, workload, name, shown) in enumerate(panels):
        axes = drawn.add_subplot(1, len(panels), place + 1)
        values = [figure(found, setting, workload, client, name) for client in names]
        bars = axes.barh(names, values, color=[_color(client) for client in names])
        axes.bar_label(bars, [shown(value) for value in values], padding=3, fontsize=8)
        axes.invert_yaxis()
        axes.set_xlabel(label, fontsize=9)
        axes.margins(x=0.15)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
        if place:
            axes.set_yticklabels([])
    drawn.savefig(path, format="svg", metadata={"Date": None})


def _color(client: str) -> str:
    if client.startswith("bridgetask"):
        return _OURS
    return _BOUNDS if client in ("floor", "frames") else _OTHERS
