"""Every snippet in the README runs as it is, but for the broker's address."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

README = (Path(__file__).parent.parent / "README.md").read_text()
BROKER = "amqp://guest:guest@127.0.0.1:5672//"

#: What runs the function that the Twisted snippet defines, and what it gives.
HARNESS = "task.react(lambda reactor: calls().addCallback(lambda r: print(r == [13, 7, 8])))"


def programs() -> list[str]:
    """Return the README's Python programs; a snippet marked so continues the one before it."""
    found: list[str] = []
    for marker, code in re.findall(r"(<!-- continues -->\n)?```python\n(.*?)```", README, re.S):
        if not marker:
            found.append(code)
        elif "task.react(main)" in found[-1]:
            found.append(found[-1].replace("task.react(main)\n", "") + code + HARNESS)
        else:
            found[-1] += code
    return found


def test_no_snippet_is_left_out() -> None:
    assert README.count("```python") == 8
    assert len(programs()) == 5
    assert all(BROKER in program for program in programs())


@pytest.mark.parametrize("number", range(5))
def test_a_program_of_the_readme_runs(broker_url: str, worker: object, number: int) -> None:
    program = programs()[number].replace(BROKER, broker_url)
    finished = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env={**os.environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    assert not finished.stderr
    if HARNESS in program:
        assert finished.stdout == "True\n"


def test_the_scripts_and_files_that_it_names_exist() -> None:
    root = Path(__file__).parent.parent
    for name in re.findall(r"\]\((\w[\w/.]*)\)", README):
        assert (root / name).exists(), name
    for name in re.findall(r"\./(scripts/\w+)", README):
        assert os.access(root / name, os.X_OK), name


def test_the_versions_that_it_names_are_those_of_pyproject() -> None:
    import tomllib

    pyproject = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())
    wanted = " ".join(pyproject["project"]["dependencies"])
    twisted = pyproject["project"]["optional-dependencies"]["twisted"][0]
    for name in ("celery>=5.5", "kombu>=5.5.2", "aio-pika>=10.2.1,<11", "aiormq>=7.2.4,<8"):
        assert name in wanted
    assert twisted == "twisted>=24.7"
    assert "| Celery 5.5 and newer, kombu 5.5.2 and newer |" in README
    assert "| aio-pika from 10.2.1, below 11; aiormq from 7.2.4, below 8 |" in README
    assert "| 24.7 and newer, any reactor |" in README
