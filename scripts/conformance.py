"""Run Celery's own integration suite through both clients. Run by scripts/conformance."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

from tests.conformance.suite import FILES, fetch, run_file  # noqa: E402
from tests.redis_servers import Redis  # noqa: E402
from tests.servers import RabbitMQ  # noqa: E402

CACHE = PROJECT / ".conformance"
OUTCOMES = ("passed", "failed", "skipped", "xfailed", "xpassed")

#: How each test of a file ended, by the client and the file.
Outcomes = dict[str, dict[str, dict[str, Any]]]


@contextmanager
def servers() -> Iterator[tuple[str, str]]:
    """Start a private RabbitMQ and a private Redis; yield their URLs."""
    with RabbitMQ() as rabbitmq, Redis() as redis:
        yield rabbitmq.url(), redis.url()


def run_client(client: str, files: list[str], selection: list[str]) -> None:
    """Run files through a client; leave how each test ended with the results."""
    suite = fetch(CACHE)
    for name in files:
        with servers() as (broker, redis):
            began = time.monotonic()
            outcomes = run_file(
                suite,
                name,
                client,
                broker=broker,
                redis=redis,
                results=results_folder() / client,
                selection=selection,
            )
        print(f"{client:>10} {name:<24} {summary(outcomes)} ({time.monotonic() - began:.0f} s)")


def results_folder() -> Path:
    return CACHE / f"results-{version('celery')}"


def read(clients: list[str], files: list[str]) -> Outcomes:
    """Return the outcomes of the last run of each file."""
    return {
        client: {
            name: json.loads(path.read_text())
            for name in files
            if (path := results_folder() / client / f"{Path(name).stem}.json").exists()
        }
        for client in clients
    }


def summary(outcomes: dict[str, Any]) -> str:
    counted = Counter(test["outcome"] for test in outcomes.values())
    return ", ".join(f"{counted[each]} {each}" for each in OUTCOMES if counted[each]) or "no test"


def print_table(outcomes: Outcomes, clients: list[str], files: list[str]) -> None:
    """Print how many tests ended how, as a Markdown table."""
    print("\n| file |" + "".join(f" {client} |" for client in clients))
    print("| --- |" + " --- |" * len(clients))
    total: dict[str, Any] = {client: {} for client in clients}
    for name in files:
        row = [outcomes[client].get(name, {}) for client in clients]
        for client, tests in zip(clients, row, strict=True):
            total[client] |= tests
        print(f"| {name} |" + "".join(f" {summary(tests)} |" for tests in row))
    print("| all |" + "".join(f" {summary(total[client])} |" for client in clients))


def print_differences(outcomes: Outcomes, clients: list[str], files: list[str]) -> bool:
    """Print every test that ended differently; return whether any passes only with Celery's."""
    worse = False
    print("\nTests that differ:")
    for name in files:
        one, other = (outcomes[client].get(name, {}) for client in clients)
        for test in sorted(one.keys() | other.keys()):
            ends = [tests.get(test, {}).get("outcome", "not run") for tests in (one, other)]
            if ends[0] == ends[1]:
                continue
            worse |= ends[0] == "passed"
            print(f"  {test}")
            for client, end, tests in zip(clients, ends, (one, other), strict=True):
                print(f"    {client:>10}: {end} {tests.get(test, {}).get('message', '')}")
    return worse


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", metavar="FILE", help="one file of the suite")
    parser.add_argument("-k", metavar="EXPRESSION", help="which tests, as pytest's -k has it")
    parser.add_argument("--client", choices=("celery", "bridgetask", "both"), default="both")
    parser.add_argument(
        "--compare", action="store_true", help="run nothing; compare the results of the last runs"
    )
    given = parser.parse_args()
    files = given.only or list(FILES)
    clients = ["celery", "bridgetask"] if given.client == "both" else [given.client]
    print(
        f"Celery {version('celery')}, kombu {version('kombu')}, "
        f"redis-py {version('redis')}, Python {platform.python_version()}, {os.cpu_count()} cores"
    )
    if not given.compare:
        for client in clients:
            run_client(client, files, ["-k", given.k] if given.k else [])
    outcomes = read(clients, files)
    print_table(outcomes, clients, files)
    return int(len(clients) == 2 and print_differences(outcomes, clients, files))


if __name__ == "__main__":
    sys.exit(main())
