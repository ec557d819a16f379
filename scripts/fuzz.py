"""What scripts/fuzz runs: each target for so many inputs, each in a process of its own."""

from __future__ import annotations

import argparse
import logging
import os
import resource
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

#: Where inputs are left that a target fails on.
_FOUND = Path(".fuzz")


def fuzz(target: str, runs: int, seed: int) -> None:
    """Run one target with atheris, which ends the process."""
    import atheris

    with atheris.instrument_imports(include=["bridgetask"]):
        from tests.security.targets import TARGETS
    logging.getLogger("bridgetask").setLevel(logging.CRITICAL + 1)
    options = [f"-runs={runs}", f"-seed={seed}", "-max_len=2000", "-rss_limit_mb=1024"]
    atheris.Setup(
        [sys.argv[0], *options, "-len_control=0", "-verbosity=0", f"-artifact_prefix={_FOUND}/"],
        TARGETS[target],
    )
    atheris.Fuzz()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200_000, help="inputs in all (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="(%(default)s)")
    parser.add_argument("--target", help="one target alone; all of them unless it is given")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    _FOUND.mkdir(exist_ok=True)
    if options.inside:
        fuzz(options.target, options.runs, options.seed)
    from tests.security.targets import TARGETS

    targets = [options.target] if options.target else list(TARGETS)
    runs = -(-options.runs // len(targets))

    def run(target: str) -> int:
        began = time.monotonic()
        command = [sys.executable, "-m", "scripts.fuzz", "--inside", "--target", target]
        command += ["--runs", str(runs), "--seed", str(options.seed)]
        finished = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
        )
        took = time.monotonic() - began
        said = finished.stdout.decode(errors="replace")
        outcome = f"FAILED:\n{said}" if finished.returncode else "no failure"
        print(f"{target}: {runs} inputs in {took:.0f} s, {outcome}", flush=True)
        return finished.returncode

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        failed = any(list(pool.map(run, targets)))
    most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024
    print(f"{runs * len(targets)} inputs; no process had more than {most} MB")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
