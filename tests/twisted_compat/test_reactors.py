"""The Twisted tests once more on the default reactor, and whole programs on each reactor."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from bridgetask import InvalidOption
from bridgetask.twisted_compat import install

pytestmark = pytest.mark.skipif(
    os.environ.get("BRIDGETASK_TEST_REACTOR") == "default", reason="this is the second run"
)


@pytest.mark.timeout(600)
def test_the_twisted_tests_pass_on_the_default_reactor(
    broker_url: str, worker: object, redis_url: str, redis_worker: object
) -> None:
    finished = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "tests/twisted_compat", "-p", "no:cacheprovider"],
        env={
            **os.environ,
            "BRIDGETASK_TEST_REACTOR": "default",
            "BRIDGETASK_TEST_WORKER": "running",
            "BRIDGETASK_AMQP_URL": broker_url,
            "BRIDGETASK_REDIS_URL": redis_url,
        },
        capture_output=True,
        text=True,
        timeout=580,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout[-5000:]
    assert " passed" in finished.stdout


INSTALLED = {
    "default": "",
    "asyncio": "from bridgetask.twisted_compat import install; install()",
    "uvloop": "from bridgetask.twisted_compat import install; install(uvloop=True)",
}


@pytest.mark.parametrize("reactor", INSTALLED)
def test_stopping_the_reactor_disconnects_and_leaves_nothing(
    broker_url: str, worker: object, reactor: str
) -> None:
    program = f"""
{INSTALLED[reactor]}
import threading
from twisted.internet import reactor
from bridgetask.twisted_compat import TwistedCelery
from tests.tasks import app

tx_app = TwistedCelery(app)

def call():
    d = tx_app.send_task("tests.tasks.add", (1, 2))
    d.addCallback(print)
    d.addErrback(print)
    d.addBoth(lambda _: reactor.stop())

reactor.callWhenRunning(call)
reactor.run()
print(tx_app.client.closed, tx_app.client._sessions.current)
"""
    finished = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "BRIDGETASK_TEST_BROKER": broker_url},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert finished.stdout == "3\nTrue None\n", finished.stderr
    assert not finished.stderr


def test_installing_uvloop_without_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)
    with pytest.raises(InvalidOption, match="uvloop: is not installed"):
        install(uvloop=True)
