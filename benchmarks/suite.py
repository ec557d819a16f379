"""Compare bridgetask with everything that one would use instead; ``benchmarks/run`` runs this."""

from __future__ import annotations

import argparse
import json
import math
import signal
import statistics
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from . import document, harness
from .clients import CLIENTS
from .environment import machine, versions
from .harness import ClientProcess, Failed, medians

__all__ = ["Plan", "compare", "main"]

#: The clients whose bursts are profiled: the hot path as it is, and as it was.
PROFILED = ("bridgetask, plain aio-pika", "bridgetask")

RESULTS = Path(__file__).resolve().parent / "results"


@dataclass(frozen=True)
class Workload:
    """What the clients take turns at.

    :param name: what it is called in the results.
    :param does: the workload of a client.
    :param round_trips: how many calls and results it takes; None if none, or if it lasts as long
        whatever the client.
    :param rounds: how often at most.
    """

    name: str
    does: str
    options: dict[str, Any]
    round_trips: int | None = None
    rounds: int = 100


def _bursts(*counts: int, scale: float) -> list[Workload]:
    found = []
    for count in counts:
        scaled = max(10, int(count * scale))
        options = {"count": scaled, "window": min(scaled, 1000)}
        rounds = 1 if count > 10_000 else 100
        found.append(Workload(f"burst_{count}", "burst", options, scaled, rounds))
    return found


def _large(scale: float) -> list[Workload]:
    return [
        Workload(
            f"large_{kilobytes}kb",
            "large",
            {"count": int(count * scale), "window": 50, "size": kilobytes * 1000},
            int(count * scale),
        )
        for kilobytes, count in ((1, 1000), (100, 100))
    ]


@dataclass
class Plan:
    """What is compared, and how thoroughly.

    :param rounds: how often each client takes its turn at a workload.
    :param limit: seconds that a turn may take; what would take longer is left out.
    :param scale: by what the numbers of tasks are multiplied.
    """

    rounds: int = 3
    limit: float = 25.0
    scale: float = 1.0
    counts: Sequence[int] = (1000, 10_000, 100_000)
    levels: Sequence[int] = (1000, 10_000, 200_000)
    steady_seconds: float = 3.0
    import_rounds: int = 5
    clients: Sequence[str] = tuple(CLIENTS)
    only: Sequence[str] = ()
    settings: Sequence[str] = ("replier, rpc", "replier, redis", "worker, rpc", "worker, redis")
    report: Callable[[str], None] = field(default=lambda line: print(line, file=sys.stderr))

    @property
    def pending(self) -> list[int]:
        """How many results are pending, one after the other."""
        return [self._count(each) for each in self.levels]

    def _count(self, count: int) -> int:
        return max(2, int(count * self.scale))

    def workloads(self, setting: str) -> list[Workload]:
        """Return what is done in a setting, in order."""
        small, scale = self._count, self.scale
        singly = Workload("one_by_one", "one_by_one", {"count": small(300)}, small(300))
        bursts = _bursts(*self.counts, scale=scale)
        if setting.startswith("worker"):
            found = [*bursts[:1], singly]
        else:
            flood = Workload("flood", "flood", {"count": small(10_000)}, small(10_000))
            found = [
                *(*bursts[:1], singly, *bursts[1:], flood),
                Workload("steady", "steady", {"seconds": self.steady_seconds}),
                *_large(scale),
                Workload("groups", "groups", {"count": 5, "size": small(100)}, 5 * small(100)),
            ]
        if setting == "replier, rpc":
            options = {"count": small(500)}
            pipelined = {"count": small(5000), "window": min(small(5000), 1000)}
            found += [
                Workload("send_one_by_one", "send_one_by_one", options),
                Workload("send", "send", pipelined),
            ]
        return [each for each in found if not self.only or each.name in self.only]


class Setting:
    """The clients beside each other, with one broker, one result backend, and who answers."""

    def __init__(self, plan: Plan, name: str, url: str, backend: str) -> None:
        self._plan = plan
        self._name = name
        self._url, self._backend = url, backend
        kind = name.partition(", ")[2]
        self._names = [each for each in plan.clients if kind in CLIENTS[each].backends]
        self._clients: dict[str, ClientProcess] = {}
        self._rates: dict[str, float] = {}
        self.found: dict[str, dict[str, Any]] = {}

    def run(self) -> dict[str, dict[str, Any]]:
        """Do all workloads; return workload -> client -> figures."""
        try:
            for workload in self._plan.workloads(self._name):
                self._plan.report(f"{self._name}: {workload.name}")
                self.found[workload.name] = self._compared(workload)
            for name, figures in self.found.get("burst_1000", {}).items():
                if not self._name.startswith("worker") and "medians" in figures:
                    self._count_system_calls(name)
            if self._name == "replier, rpc" and not self._plan.only:
                self.found["profile"] = self._profiles()
        finally:
            for client in self._clients.values():
                client.kill()
        if self._name == "replier, rpc" and (not self._plan.only or "pending" in self._plan.only):
            self.found["pending"] = self._pending()
        return self.found

    def _compared(self, workload: Workload) -> dict[str, Any]:
        found: dict[str, Any] = {}
        options: dict[str, dict[str, Any]] = {}
        for name in self._names:
            if workload.does in CLIENTS[name].skips:
                continue
            try:
                options[name] = self._prepared(name, workload)
            except Failed as error:
                found[name] = {"left_out": str(error)}
        rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in options}
        for number in range(min(self._plan.rounds, workload.rounds)):
            order = deque(options)
            order.rotate(-number)  # so that nobody always comes after the same one
            for name in order:
                try:
                    figures = self._clients[name].run(workload.does, **options[name])
                    rounds[name].append(figures)
                except Failed as error:
                    found[name] = {"left_out": str(error)}
                    del options[name]
                    self._clients.pop(name).kill()
                harness.purge(self._url)
        for name in options:
            summary = medians(rounds[name])
            found[name] = {"medians": summary, "rounds": [medians([each]) for each in rounds[name]]}
            if workload.name == "burst_1000":
                self._rates[name] = summary["per_second"]
        return {name: found[name] for name in self._names if name in found}

    def _prepared(self, name: str, workload: Workload) -> dict[str, Any]:
        """Start and warm up a client where that is due; return its options.

        :raises Failed: it can't do this, or not in time.
        """
        contender, options = CLIENTS[name], dict(workload.options)
        rate = self._rates.get(name)
        if rate and workload.round_trips and workload.round_trips / rate > self._plan.limit:
            raise Failed(f"would take {workload.round_trips / rate:.0f} s a round")
        if name not in self._clients:
            self._clients[name] = ClientProcess(name, self._url, self._backend)
            if "burst" not in contender.skips:
                self._clients[name].run("burst", count=20, window=10)
        if "window" in options:
            options["window"] = min(options["window"], contender.limit)
        if workload.does == "flood":
            options["held"] = contender.holds
        elif workload.does == "steady":
            if not rate:
                raise Failed("its burst failed")
            options["rate"] = rate / 2
        return options

    def _count_system_calls(self, name: str) -> None:
        count = max(10, int(500 * self._plan.scale))
        rate = self._rates[name]
        calls = None
        if name in self._clients and count / rate < self._plan.limit / 10:
            calls = self._clients[name].system_calls(
                "burst", count=count, window=min(count, CLIENTS[name].limit)
            )
        if calls is not None:
            table = self.found.setdefault("system_calls", {})
            table[name] = {"medians": {"calls": calls / count}}

    def _profiles(self) -> dict[str, Any]:
        count = max(10, int(2000 * self._plan.scale))
        return {
            name: self._clients[name].run("profile", count=count, window=min(count, 1000))
            for name in PROFILED
            if name in self._clients
        }

    def _pending(self) -> dict[str, Any]:
        """Let results be pending, in processes that have done nothing else."""
        found: dict[str, Any] = {}
        for name in self._names:
            if "pending" in CLIENTS[name].skips:
                continue
            self._plan.report(f"{self._name}: pending, {name}")
            client = ClientProcess(name, self._url, self._backend)
            count = max(10, int(1000 * self._plan.scale))
            try:
                client.run("burst", count=count, window=count)
                figures = client.run(
                    "pending", timeout=600, levels=self._plan.pending, count=count, window=count
                )
            except Failed as error:
                found[name] = {"left_out": str(error)}
                continue
            finally:
                client.kill()
                harness.purge(self._url)
            found[name] = {"medians": {}}
            for step in figures["steps"]:
                found[name]["medians"] |= {
                    f"bytes_{step['pending']}": step["bytes"],
                    f"cpu_us_{step['pending']}": medians(step["bursts"])["cpu_us"],
                }
        return found


def imports(plan: Plan) -> dict[str, Any]:
    """Measure how long it takes to import each client, in processes of their own."""
    rounds: dict[str, list[float]] = {name: [] for name in plan.clients}
    for _ in range(plan.import_rounds):
        for name, figures in rounds.items():
            code = (
                "import time; began = time.perf_counter()\n"
                f"import {CLIENTS[name].imports}\nprint(time.perf_counter() - began)"
            )
            done = subprocess.run(
                [sys.executable, "-c", code], capture_output=True, text=True, check=True
            )
            figures.append(float(done.stdout) * 1e3)
    return {
        name: {"medians": {"ms": statistics.median(figures)}}
        for name, figures in rounds.items()
        if figures
    }


@contextmanager
def _answering(setting: str, url: str, backend: str) -> Iterator[None]:
    who: Callable[[str, str], AbstractContextManager[None]]
    who = harness.worker if setting.startswith("worker") else harness.replier
    harness.purge(url)
    with who(url, backend):
        yield


def compare(plan: Plan) -> dict[str, Any]:
    """Run the comparison; return all figures."""
    began = time.monotonic()
    missing = [name for name in plan.clients if not CLIENTS[name].installed]
    plan = replace(plan, clients=[name for name in plan.clients if name not in missing])
    found: dict[str, Any] = {"missing": missing, "rounds": plan.rounds, "scale": plan.scale}
    found["levels"] = plan.pending
    with ExitStack() as stack:
        url = stack.enter_context(harness.broker())
        stored = ""
        if any(setting.endswith("redis") for setting in plan.settings):
            stored = stack.enter_context(harness.redis())
        found["machine"], found["versions"] = machine(), versions(url, stored)
        found["settings"] = {}
        for setting in plan.settings:
            backend = stored if setting.endswith("redis") else "rpc://"
            with _answering(setting, url, backend):
                found["settings"][setting] = Setting(plan, setting, url, backend).run()
    if plan.import_rounds:
        plan.report("imports")
        found["imports"] = imports(plan)
    found["machine"]["load_at_end"] = machine()["load"]
    found["seconds"] = math.ceil(time.monotonic() - began)
    return found


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # leave no server running
    parser = argparse.ArgumentParser(prog="benchmarks/run", description=__doc__)
    parser.add_argument("--fast", action="store_true", help="fewer rounds, and no large numbers")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--limit", type=float, help="seconds that a turn may take")
    parser.add_argument(
        "--scale", type=float, help="multiplies the numbers of tasks, to try things out"
    )
    parser.add_argument("--clients", nargs="+", choices=list(CLIENTS), metavar="CLIENT")
    parser.add_argument("--settings", nargs="+", choices=Plan.settings, metavar="SETTING")
    parser.add_argument("--only", nargs="+", metavar="WORKLOAD", help="such as burst_1000")
    parser.add_argument("--output", type=Path, help="where to write the figures, as JSON")
    parser.add_argument("--figures", type=Path, help="measure nothing; take these")
    parser.add_argument("--document", action="store_true", help="rewrite the documentation's part")
    arguments = parser.parse_args()
    if arguments.figures:
        found = json.loads(arguments.figures.read_text())
    else:
        chosen = {
            name: value
            for name in ("rounds", "limit", "scale", "clients", "settings", "only")
            if (value := getattr(arguments, name)) is not None
        }
        found = compare(replace(FAST if arguments.fast else Plan(), **chosen))
        output = arguments.output or RESULTS / ("fast.json" if arguments.fast else "full.json")
        output.parent.mkdir(exist_ok=True)
        output.write_text(json.dumps(found, indent=1) + "\n")
    print(document.text(found))
    if arguments.document:
        document.write(found)


FAST = Plan(
    rounds=2,
    limit=5.0,
    counts=(1000, 10_000),
    levels=(1000, 20_000),
    steady_seconds=1.0,
    import_rounds=2,
)


if __name__ == "__main__":
    main()
