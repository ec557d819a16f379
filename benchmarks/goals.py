"""What bridgetask sets out to reach, as ratios within one run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Goal", "figure", "goals"]

_RPC = "replier, rpc"


def figure(found: dict[str, Any], setting: str, workload: str, client: str, name: str) -> Any:
    """Return a figure, or None where it was not measured."""
    measured = found["settings"].get(setting, {}).get(workload, {}).get(client, {})
    return measured.get("medians", {}).get(name)


@dataclass(frozen=True)
class Goal:
    """A figure that should be at least, or at most, some other.

    :param says: the goal, in words.
    :param of: what is compared: (workload, client, figure).
    :param against: with what; None for the figure itself.
    """

    title: str
    says: str
    of: tuple[str, str, str]
    against: tuple[str, str, str] | None
    bound: float
    at_least: bool = False
    shown: Callable[[float], str] = "{:.2f} x".format

    def measured(self, found: dict[str, Any]) -> float | None:
        """Return what was reached in a run, or None if the run does not tell."""
        value = figure(found, _RPC, *self.of)
        base = figure(found, _RPC, *self.against) if self.against else 1
        return value / base if value is not None and base else None

    def met(self, measured: float) -> bool:
        """Whether that is what was wanted."""
        return measured >= self.bound if self.at_least else measured <= self.bound


def _most_pending(found: dict[str, Any]) -> int:
    return int(max(found["levels"]))


def goals(found: dict[str, Any]) -> Sequence[Goal]:
    """Return the goals for a run, as far as its numbers of pending results go."""
    ours, theirs, most = "bridgetask", "celery", _most_pending(found)
    burst, least = "burst_1000", int(min(found["levels"]))
    return (
        Goal(
            "Client CPU of a confirmed round trip, burst of 1,000",
            "at most 1/5 of Celery's unconfirmed one",
            (burst, ours, "cpu_us"),
            (burst, theirs, "cpu_us"),
            1 / 5,
            shown=lambda value: f"1/{1 / value:.1f}",
        ),
        Goal(
            "Confirmed pipelined sends a second",
            "at least 4 x Celery's unconfirmed `ignore_result` sends",
            ("send", ours, "per_second"),
            ("send", theirs, "per_second"),
            4,
            at_least=True,
        ),
        Goal(
            "Confirmed pipelined sends a second",
            "at least 0.6 x pre-encoded frames from a socket",
            ("send", ours, "per_second"),
            ("send", "frames", "per_second"),
            0.6,
            at_least=True,
        ),
        Goal(
            "Round trips a second, burst of 1,000",
            "at least 3 x Celery's",
            (burst, ours, "per_second"),
            (burst, theirs, "per_second"),
            3,
            at_least=True,
        ),
        Goal(
            "Latency of one call after the other, median",
            "below Celery's",
            ("one_by_one", ours, "p50_ms"),
            ("one_by_one", theirs, "p50_ms"),
            1,
        ),
        Goal(
            "Worst stall of the event loop, 10,000 calls in flight",
            "at most 10 ms",
            ("flood", ours, "stall_max_ms"),
            None,
            10,
            shown="{:.1f} ms".format,
        ),
        Goal(
            f"Memory a pending result, {most:,} pending",
            "at most 1.5 KiB",
            ("pending", ours, f"bytes_{most}"),
            None,
            1536,
            shown="{:,.0f} bytes".format,
        ),
        Goal(
            f"CPU a task with {most:,} results pending",
            f"at most 1.1 x that with {least:,}",
            ("pending", ours, f"cpu_us_{most}"),
            ("pending", ours, f"cpu_us_{least}"),
            1.1,
        ),
        Goal(
            "CPU a task on Twisted's asyncio reactor, burst of 1,000",
            "at most 1.2 x asyncio's",
            (burst, "bridgetask, Twisted on asyncio", "cpu_us"),
            (burst, ours, "cpu_us"),
            1.2,
        ),
    )
