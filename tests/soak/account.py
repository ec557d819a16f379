"""What became of each task, and whether that adds up."""

from __future__ import annotations

import asyncio
import gc
import statistics
import threading
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import psutil

__all__ = ["Account", "Entry", "Footprint"]


@dataclass(slots=True)
class Entry:
    """One task."""

    kind: str
    #: ``confirmed``, ``unknown``, or ``not sent``.
    send: str = "open"
    #: ``answered``, or why there is no answer.
    outcome: str = "open"


class Account:
    """All tasks by their ids, and what went wrong with any."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.problems: list[str] = []
        #: What became of waits that were to be cancelled or to time out.
        self.waits: Counter[str] = Counter()
        #: What waiting for answers raised.
        self.errors: Counter[str] = Counter()
        #: Seconds to recover, by fault.
        self.recoveries: dict[str, list[float]] = {}

    def check(self, executions: Path) -> str:
        """Compare with what the workers wrote down; return the sums."""
        executed = Counter(executions.read_text().split() if executions.exists() else ())
        sums: Counter[tuple[str, str]] = Counter()
        for task_id, entry in self.entries.items():
            runs = executed.pop(task_id, 0)
            sums["results by", entry.kind.split()[0]] += 1
            sums["send", entry.send] += 1
            sums["outcome", entry.outcome] += 1
            sums["executed", "never" if not runs else "once" if runs == 1 else "again"] += 1
            what = f"{entry.kind} {task_id}: {entry.send}, executed {runs} times, {entry.outcome}"
            if entry.send == "not sent" and runs:
                self.problems.append(f"executed though not sent: {what}")
            if entry.send == "confirmed" and not runs:
                self.problems.append(f"lost: {what}")
            if entry.outcome == "answered" and not runs:
                self.problems.append(f"answered by nobody: {what}")
            if runs and entry.outcome != "answered":
                self.problems.append(f"the answer was lost: {what}")
            if "open" in {entry.send, entry.outcome}:
                self.problems.append(f"unaccounted for: {what}")
        for task_id in executed:
            self.problems.append(f"executed, and never sent: {task_id}")
        lines = [f"{len(self.entries)} tasks"]
        for group in ("results by", "send", "executed", "outcome"):
            counts = [f"{n} {what}" for (each, what), n in sorted(sums.items()) if each == group]
            lines.append(f"  {group}: {', '.join(counts)}")
        for name, counter in (("errors", self.errors), ("given up waits", self.waits)):
            counts = [f"{n} {what}" for what, n in sorted(counter.items())]
            lines.append(f"  {name}: {', '.join(counts)}")
        lines.append("seconds until a call is answered, made as soon as a fault is over:")
        for fault, seconds in sorted(self.recoveries.items()):
            worst, median = max(seconds), statistics.median(seconds)
            lines.append(f"  {fault}: median {median:.1f}, worst {worst:.1f}, of {len(seconds)}")
        return "\n".join(lines)


@dataclass
class Footprint:
    """What a client takes up in this process."""

    tasks: int
    threads: int
    sockets: int
    megabytes: float

    @classmethod
    def now(cls) -> Footprint:
        gc.collect()
        process = psutil.Process()
        return cls(
            tasks=len(asyncio.all_tasks()),
            threads=len([each for each in threading.enumerate() if not _ours(each)]),
            sockets=len(process.net_connections("tcp")),
            megabytes=process.memory_info().rss / 2**20,
        )


def _ours(thread: threading.Thread) -> bool:
    """Whether the soak started it, to do harm in or to read what a worker says."""
    return thread.name.startswith(("asyncio_", "worker output"))
