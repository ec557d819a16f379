"""Celery's own integration suite: where it comes from, and how it is run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

PROJECT = Path(__file__).resolve().parent.parent.parent

#: The files that concern a client.
FILES = (
    "test_canvas.py",
    "test_tasks.py",
    "test_group_chains.py",
    "test_inspect.py",
    "test_redis_backend.py",
    "test_serialization.py",
    "test_security.py",
)

#: Plugins that go with each client. The first two of them change nothing.
PLUGINS = {
    "celery": ("celery.contrib.pytest", "tests.conformance.report"),
    "bridgetask": (
        *("celery.contrib.pytest", "tests.conformance.report"),
        "tests.conformance.plugin",
    ),
}

#: Seconds after which a test that waits for ever has failed.
TIMEOUT = 300


def fetch(cache: Path) -> Path:
    """Return the folder of the integration suite of the installed Celery, fetched with pip.

    Celery itself is left out of it, so that the tests import the installed one.
    """
    release = f"celery-{version('celery')}"
    folder = cache / release
    if folder.exists():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as temporary:
        subprocess.run(
            [
                *(sys.executable, "-m", "pip", "download", "--quiet"),
                *("--disable-pip-version-check", "--no-deps", "--no-binary", "celery"),
                *("--dest", temporary, release.replace("-", "==")),
            ],
            check=True,
        )
        (archive,) = Path(temporary).glob("*.tar.gz")
        wanted = (f"{release}/t/integration/", f"{release}/t/__init__.py")
        with tarfile.open(archive) as tar:
            members = [
                each
                for each in tar.getmembers()
                if each.name.startswith(wanted)
                or each.name == f"{release}/pyproject.toml"
                or Path(each.name).parent == Path(f"{release}/t")
            ]
            tar.extractall(temporary, members, filter="data")
        (Path(temporary) / release).rename(folder)
    return folder


def run_file(
    suite: Path,
    name: str,
    client: str,
    *,
    broker: str,
    redis: str,
    results: Path,
    selection: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Run one file of the suite in a process of its own, and return how each test ended.

    Its output, with what could not be routed, is left in ``results``, and so is a JUnit report.

    :param client: ``"celery"`` or ``"bridgetask"``.
    :param selection: further arguments for pytest.
    """
    results.mkdir(parents=True, exist_ok=True)
    base = results / Path(name).stem
    outcomes = base.with_suffix(".json")
    outcomes.unlink(missing_ok=True)
    address = urlsplit(redis)
    with base.with_suffix(".log").open("wb") as output:
        subprocess.run(
            [
                *(sys.executable, "-m", "pytest", "-c", "pyproject.toml", "-ra", "-v"),
                "--tb=native",  # pytest's own can't show deeply nested frames, and breaks off
                *(argument for plugin in PLUGINS[client] for argument in ("-p", plugin)),
                *("-p", "no:cacheprovider", "-p", "no:asyncio", "--timeout", str(TIMEOUT)),
                *("--conformance-report", outcomes, "--junitxml", base.with_suffix(".xml")),
                *selection,
                f"t/integration/{name}",
            ],
            cwd=suite,
            env={
                **os.environ,
                # Tests start workers by the name of celery, and read what workers log.
                "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
                "WORKER_LOGLEVEL": "INFO",
                "PYTHONPATH": str(PROJECT),
                "TEST_BROKER": broker,
                "TEST_BACKEND": redis,
                "REDIS_HOST": str(address.hostname),
                "REDIS_PORT": str(address.port),
                **(environment or {}),
            },
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if not outcomes.exists():
        raise RuntimeError(f"pytest did not get to its end: see {output.name}")
    read: dict[str, Any] = json.loads(outcomes.read_text())
    return read
