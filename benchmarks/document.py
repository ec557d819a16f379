"""Turns a run's figures into the tables and plots of the documentation."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .clients import CLIENTS
from .goals import figure, goals

__all__ = ["table", "tables", "text", "write", "write_tables"]

_PROJECT = Path(__file__).resolve().parent.parent
_DOCUMENT = _PROJECT / "docs" / "performance.md"
_PLOTS = _PROJECT / "docs" / "plots"
_BASE = "celery"


@dataclass(frozen=True)
class Column:
    """A figure of each client.

    :param compared: whether to show how many times Celery's it is, or which part of it.
    """

    title: str
    workload: str
    figure: str
    shown: str = "{:,.0f}"
    compared: str = ""

    def cell(self, found: dict[str, Any], setting: str, client: str) -> str:
        measured = found["settings"].get(setting, {}).get(self.workload, {}).get(client)
        if measured is None:
            return "-"
        if "left_out" in measured:
            return measured["left_out"].replace("|", "/")
        value = measured["medians"].get(self.figure)
        if value is None:
            return "-"
        shown = self.shown.format(value)
        base = figure(found, setting, self.workload, _BASE, self.figure)
        if not self.compared or not base or not value or client == _BASE:
            return shown
        if self.compared == "part":
            return (
                f"{shown} (1/{base / value:.1f})"
                if value < base
                else f"{shown} ({value / base:.1f} x)"
            )
        return f"{shown} ({value / base:.{1 if value > base else 2}f} x)"


def _burst(count: int, short: str) -> list[Column]:
    return [
        Column(f"burst of {count:,}: tasks/s", f"burst_{count}", "per_second", compared="times"),
        Column(f"{short}CPU µs a task", f"burst_{count}", "cpu_us", compared="part"),
    ]


_SINGLY = [
    Column("one by one: tasks/s", "one_by_one", "per_second"),
    Column("p50 ms", "one_by_one", "p50_ms", "{:.2f}"),
    Column("p99 ms", "one_by_one", "p99_ms", "{:.2f}"),
    Column("max ms", "one_by_one", "max_ms", "{:.1f}"),
]
_LONG = [*_burst(10_000, ""), *_burst(100_000, "")]
_MEMORY = Column("peak memory at 10,000, MB", "burst_10000", "peak_mb")


def _pending(found: dict[str, Any]) -> list[Column]:
    levels = found["levels"]
    sizes = [Column(f"bytes, {each:,}", "pending", f"bytes_{each}") for each in levels[1:]]
    cpu = [Column(f"CPU µs, {each:,}", "pending", f"cpu_us_{each}", "{:.1f}") for each in levels]
    return [*sizes, *cpu]


def _columns(found: dict[str, Any]) -> dict[str, tuple[str, Sequence[Column]]]:
    """Return, for each table: the setting, and the columns."""
    columns: dict[str, tuple[str, Sequence[Column]]] = {}
    for setting in ("replier, rpc", "replier, redis", "worker, rpc", "worker, redis"):
        columns[f"round trips, {setting}"] = (setting, [*_burst(1000, ""), *_SINGLY])
    for kind in ("rpc", "redis"):
        setting = f"replier, {kind}"
        columns[f"long bursts, {kind}"] = (setting, [*_LONG, _MEMORY])
        columns[f"stalls, {kind}"] = (
            setting,
            [
                Column("tasks/s", "flood", "per_second"),
                Column("CPU µs a task", "flood", "cpu_us", compared=""),
                Column("p99 stall, ms", "flood", "stall_p99_ms", "{:.1f}"),
                Column("worst stall, ms", "flood", "stall_max_ms", "{:.1f}"),
            ],
        )
        columns[f"steady load, {kind}"] = (
            setting,
            [
                Column("tasks/s", "steady", "per_second"),
                Column("p50 ms", "steady", "p50_ms", "{:.2f}"),
                Column("p99 ms", "steady", "p99_ms", "{:.1f}"),
                Column("max ms", "steady", "max_ms", "{:.1f}"),
                Column("CPU µs a task", "steady", "cpu_us"),
                Column("p99 stall, ms", "steady", "stall_p99_ms", "{:.1f}"),
                Column("worst stall, ms", "steady", "stall_max_ms", "{:.1f}"),
            ],
        )
        columns[f"large and groups, {kind}"] = (
            setting,
            [
                Column("1 KB: tasks/s", "large_1kb", "per_second", compared="times"),
                Column("CPU µs", "large_1kb", "cpu_us", compared="part"),
                Column("100 KB: tasks/s", "large_100kb", "per_second", compared="times"),
                Column("CPU µs", "large_100kb", "cpu_us", compared="part"),
                Column("groups: tasks/s", "groups", "per_second", compared="times"),
                Column("CPU µs", "groups", "cpu_us", compared="part"),
            ],
        )
    columns["sends"] = (
        "replier, rpc",
        [
            Column("one by one: sends/s", "send_one_by_one", "per_second", compared="times"),
            Column("CPU µs", "send_one_by_one", "cpu_us", compared="part"),
            Column("pipelined: sends/s", "send", "per_second", compared="times"),
            Column("CPU µs", "send", "cpu_us", compared="part"),
        ],
    )
    columns["pending"] = ("replier, rpc", _pending(found))
    return columns


def table(titles: Sequence[str], rows: Iterable[Sequence[str]], align: str = "---:") -> str:
    """Return a table in Markdown."""
    lines = [titles, ["---", *[align] * (len(titles) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def tables(found: dict[str, Any]) -> dict[str, str]:
    """Return every table of a run, by its name."""
    made = {"goals": _goals(found), "machine": _machine(found), "clients": _clients(found)}
    for name, (setting, columns) in _columns(found).items():
        rows = []
        for client in CLIENTS:
            cells = [column.cell(found, setting, client) for column in columns]
            if any(cell != "-" for cell in cells):
                rows.append([client, *cells])
        if rows:
            made[name] = table(["", *(column.title for column in columns)], rows)
    made["costs"] = _costs(found)
    profiles = found["settings"].get("replier, rpc", {}).get("profile", {})
    made |= {f"profile, {name}": _profile(each["rows"]) for name, each in profiles.items()}
    if profiles:
        made["packages"] = _packages(profiles)
    return made


def _goals(found: dict[str, Any]) -> str:
    rows = []
    for goal in goals(found):
        measured = goal.measured(found)
        if measured is None:
            rows.append([goal.title, goal.says, "not measured", ""])
        else:
            met = "met" if goal.met(measured) else "**missed**"
            rows.append([goal.title, goal.says, goal.shown(measured), met])
    return table(["figure", "goal", "measured", ""], rows, "---")


def _machine(found: dict[str, Any]) -> str:
    machine = found["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    load = (
        f"load average {machine['load'][0]} when it began, {machine['load_at_end'][0]} at the end"
    )
    trial = "" if found["scale"] == 1 else f" **A trial, with {found['scale']} of the tasks.**"
    return (
        f"Measured on: {machine['processor']}, {machine['cores']} cores for all processes, "
        f"{machine['memory_gb']} GB, {machine['system']}; {load}. {versions}. "
        f"Medians of {found['rounds']} rounds; the run took {found['seconds'] / 60:.0f} minutes."
        f"{trial}"
    )


def _clients(found: dict[str, Any]) -> str:
    return table(
        ["client", "results from", "waits for confirms", "remarks"],
        [
            [name, ", ".join(each.backends), "yes" if each.confirms else "no", each.remark]
            for name, each in CLIENTS.items()
            if name not in found["missing"]
        ],
        "---",
    )


def _costs(found: dict[str, Any]) -> str:
    rows = []
    for name in CLIENTS:
        calls = [
            figure(found, f"replier, {kind}", "system_calls", name, "calls")
            for kind in ("rpc", "redis")
        ]
        took = found.get("imports", {}).get(name, {}).get("medians", {}).get("ms")
        cells = [*(_or_dash("{:.1f}", each) for each in calls), _or_dash("{:,.0f}", took)]
        if set(cells) != {"-"}:
            rows.append([name, *cells])
    return table(["", "system calls a task, rpc", "the same, redis", "import, ms"], rows)


def _profile(rows: Iterable[dict[str, Any]]) -> str:
    return table(
        ["function", "calls a task", "own µs a task", "share"],
        [
            [
                f"`{row['function']}`",
                f"{row['calls']:.1f}",
                f"{row['us']:.1f}",
                f"{row['share']:.1%}",
            ]
            for row in rows
        ],
    )


def _packages(profiles: dict[str, Any]) -> str:
    found = {package: None for each in profiles.values() for package in each["packages"]}
    return table(
        ["own µs a task", *profiles],
        [
            [package, *(f"{each['packages'].get(package, 0):.1f}" for each in profiles.values())]
            for package in found
        ],
    )


def _or_dash(shown: str, value: float | None) -> str:
    return "-" if value is None else shown.format(value)


def text(found: dict[str, Any]) -> str:
    """Return all tables."""
    return "\n\n".join(f"## {name}\n\n{each}" for name, each in tables(found).items())


def write(found: dict[str, Any], path: Path = _DOCUMENT, plots: Path = _PLOTS) -> None:
    """Write the tables into the documentation, between their marks, and draw the plots."""
    from .plots import draw

    write_tables(tables(found), path)
    draw(found, plots)


def write_tables(made: Mapping[str, str], path: Path = _DOCUMENT) -> None:
    """Write tables into the documentation, between their marks."""
    document = path.read_text()
    for name, content in made.items():
        begin, end = f"<!-- table: {name} -->", "<!-- end -->"
        pattern = re.escape(begin) + r".*?" + re.escape(end)
        document = re.sub(
            pattern, lambda _, new=f"{begin}\n{content}\n{end}": new, document, flags=re.S
        )
    path.write_text(document)
