"""Compare with Celery's client and with the floor in under a minute, for use while working."""

from __future__ import annotations

import argparse

from .harness import broker, medians, replier, rounds

NAMES = ["celery", "bridgetask", "bridgetask, plain aio-pika", "floor"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--count", type=int, default=1000, help="tasks a round")
    parser.add_argument("--only", nargs="*", default=NAMES, help="clients")
    arguments = parser.parse_args()
    count = arguments.count
    workloads = [
        ("one_by_one", {"count": count // 5}),
        ("burst", {"count": count, "window": min(count, 1000)}),
        ("send", {"count": count, "window": min(count, 1000)}),
    ]
    with broker() as url, replier(url):
        found = rounds(arguments.only, url, workloads, arguments.rounds)
    for workload, _ in workloads:
        print(f"\n{workload}: tasks/s, and client CPU µs a task")
        by_name = {name: medians(found[name][workload]) for name in found}
        for name, figures in by_name.items():
            print(f"  {name:28} {figures['per_second']:8.0f}/s {figures['cpu_us']:7.1f} µs", end="")
            for other in ("celery", "floor"):
                if other in by_name and other != name:
                    base = by_name[other]
                    print(
                        f"   {other}: {figures['per_second'] / base['per_second']:5.2f} x,"
                        f" CPU 1/{base['cpu_us'] / figures['cpu_us']:.2f}",
                        end="",
                    )
            print()


if __name__ == "__main__":
    main()
