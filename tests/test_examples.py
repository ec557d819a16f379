"""The examples run as they are, against a real worker, on the default and the asyncio reactor."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from .servers import Worker, free_ports

EXAMPLES = Path(__file__).parent.parent / "examples"

#: Runs a program after the asyncio reactor was installed.
ON_ASYNCIO = (
    "import runpy, sys; from bridgetask.twisted_compat import install; install();"
    "sys.argv = sys.argv[1:]; sys.path.insert(0, '.');"
    "runpy.run_path(sys.argv[0], run_name='__main__')"
)
REACTORS = {"default": [], "asyncio": ["-c", ON_ASYNCIO]}


@pytest.fixture(scope="module")
def environment(broker_url: str) -> dict[str, str]:
    return {**os.environ, "BROKER_URL": broker_url.rstrip("/") + "/plain"}


@pytest.fixture(scope="module", autouse=True)
def examples_worker(environment: dict[str, str]) -> Iterator[None]:
    with Worker("tasks", environment=environment, name="examples", folder=EXAMPLES):
        yield


def command(program: str, *arguments: str, reactor: str = "default") -> list[str]:
    return [sys.executable, *REACTORS[reactor], program, *arguments]


def run(program: str, environment: dict[str, str], reactor: str = "default") -> str:
    finished = subprocess.run(
        command(program, reactor=reactor),
        cwd=EXAMPLES,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr + finished.stdout
    assert not finished.stderr, finished.stderr
    return finished.stdout


@pytest.mark.parametrize("reactor", REACTORS)
def test_twisted_send_task(environment: dict[str, str], reactor: str) -> None:
    assert run("twisted_send_task.py", environment, reactor) == "1 + 2 = 3\n"


@pytest.mark.parametrize("reactor", REACTORS)
def test_celery_client(environment: dict[str, str], reactor: str) -> None:
    assert run("celery_client.py", environment, reactor).splitlines() == [
        "delay: 3",
        "apply_async: 7",
        "decorated: cat.png at 64px",
        "subtask: 11",
        "s: 15",
        "chain: 13",
        "pipe: 23",
        "gatherResults: [0, 2, 4, 6, 8]",
        "DeferredList: [(True, 2), (True, 4)]",
        "maybeDeferred: 18",
        "AsyncResult: 36 PENDING False",
        "revoked: REVOKED",
        "timed out",
    ]


def test_asyncio_program(environment: dict[str, str]) -> None:
    assert run("asyncio_program.py", environment).splitlines() == [
        "by name: 3",
        "by task: cat.png at 64px",
        f"a thousand: {sum(range(1000)) + 1000}",
        "failed: this task always fails / RemoteTraceback",
        "update: STARTED ",
        *(f"update: COUNTING {{'at': {n}}}" for n in range(3)),
        "update: SUCCESS 3",
        "not yet: True",
        "in the end: 0.3",
        "revoked: REVOKED",
    ]


@pytest.mark.parametrize("reactor", REACTORS)
def test_klein_and_asyncio_share_a_client(environment: dict[str, str], reactor: str) -> None:
    (port,) = free_ports(1)
    server = subprocess.Popen(
        command("klein_and_asyncio.py", str(port), reactor=reactor),
        cwd=EXAMPLES,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert server.stdout is not None
        assert server.stdout.readline() == f"listening on {port}\n"
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as http:
            tasks = Path(f"/proc/{server.pid}/task")
            assert http.get("/sum/2/3").json() == {"sum": 5}
            assert http.get("/sums/50").json() == {"sums": [2 * n for n in range(50)]}
            threads = len(list(tasks.iterdir())) if tasks.exists() else 0
    finally:
        server.terminate()
        output, _ = server.communicate(timeout=20)
    assert "Traceback" not in output, output
    if reactor == "asyncio" and threads:
        assert threads == 1


def test_fastapi_app(environment: dict[str, str]) -> None:
    (port,) = free_ports(1)
    server = subprocess.Popen(
        [sys.executable, "-m", "uvicorn", "fastapi_app:api", "--port", str(port)],
        cwd=EXAMPLES,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    lines: list[str] = []
    try:
        assert server.stdout is not None
        for line in server.stdout:
            lines.append(line)
            if "running on" in line:
                break
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as http:
            assert http.get("/sum?a=2&b=3").json() == {"sum": 5}
            assert http.get("/slow?seconds=0.01&timeout=10").json() == {"slept": 0.01}
            late = http.get("/slow?seconds=0.5&timeout=0.05")
            assert late.status_code == 504
            assert "still running" in json.loads(late.text)["detail"]
            assert http.get("/workers").json()["workers"]
    finally:
        server.terminate()
        output, _ = server.communicate(timeout=20)
    assert "Application shutdown complete" in output, "".join(lines) + output
    assert "Traceback" not in output, output
