"""Real Redis servers and sentinels: private data, free ports, stopped at the end."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import quote

from .servers import free_ports, stop_process


class Redis:
    """A private ``redis-server`` on loopback and on a socket in the file system.

    :param password: what the default user must give, or None.
    :param users: ACL users, name -> rules.
    :param tls: paths of ``ca``, ``cert`` and ``key`` for a TLS listener that asks for certificates.
    :param config: further lines of the configuration.
    """

    def __init__(
        self,
        *,
        password: str | None = None,
        users: Mapping[str, str] | None = None,
        tls: Mapping[str, Path] | None = None,
        config: Mapping[str, Any] | None = None,
        arguments: tuple[str, ...] = (),
    ) -> None:
        self._server = shutil.which("redis-server")
        if self._server is None:
            raise RuntimeError("Redis is not installed")
        self.port, self.tls_port = free_ports(2)
        self.password = password
        self._base = Path(tempfile.mkdtemp(prefix="bridgetask-redis-"))
        self.socket = self._base / "redis.sock"
        self._arguments = arguments
        self._process: subprocess.Popen[bytes] | None = None
        settings: list[tuple[str, Any]] = [
            ("port", self.port),
            ("bind", "127.0.0.1"),
            ("dir", self._base),
            ("save", '""'),
            ("unixsocket", self.socket),
            *(config or {}).items(),
            *(("user", f"{name} {rules}") for name, rules in (users or {}).items()),
        ]
        if password is not None:
            settings.append(("requirepass", f'"{password}"'))
        if tls is not None:
            settings += [
                ("tls-port", self.tls_port),
                ("tls-ca-cert-file", tls["ca"]),
                ("tls-cert-file", tls["cert"]),
                ("tls-key-file", tls["key"]),
                ("tls-auth-clients", "yes"),
            ]
        self._config = self._base / "redis.conf"
        self._config.write_text("".join(f"{key} {value}\n" for key, value in settings))

    def url(self, db: int = 0, user: str = "", password: str | None = None) -> str:
        """Return the URL of the server."""
        given = password if password is not None else self.password
        login = f"{quote(user, safe='')}:{quote(given, safe='')}@" if given is not None else ""
        return f"redis://{login}127.0.0.1:{self.port}/{db}"

    def start(self, timeout: float = 20.0) -> None:
        """Start the server; return when it accepts connections."""
        assert self._server is not None
        output = self._base / "output"
        with output.open("wb") as stream:
            self._process = subprocess.Popen(
                [self._server, self._config, *self._arguments],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, "LC_ALL": "C.UTF-8"},
            )
        deadline = time.monotonic() + timeout
        while not _listens(self.port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"Redis did not start:\n{output.read_text()[-4000:]}")
            time.sleep(0.02)

    def cli(self, *arguments: str) -> str:
        """Run ``redis-cli`` against the server and return what it prints."""
        login = ("--no-auth-warning", "-a", self.password) if self.password is not None else ()
        finished = subprocess.run(
            ["redis-cli", "-p", str(self.port), *login, *arguments],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
        return finished.stdout.strip()

    def clients(self, kind: str) -> int:
        """Return how many clients of a kind, ``normal`` or ``pubsub``, are connected."""
        listed = self.cli("CLIENT", "LIST", "TYPE", kind).splitlines()
        return sum("cmd=client" not in line for line in listed if line)

    # Harm.

    def kill(self) -> None:
        """Kill the server as a power cut would. :meth:`start` starts it again."""
        self._signal(signal.SIGKILL)
        assert self._process is not None
        self._process.wait(10)

    def freeze(self) -> None:
        """Make the server neither take nor give a byte, until :meth:`thaw`."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen server go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def stop(self) -> None:
        """Stop the server. It can be started again, without its data."""
        if self._process is not None:
            stop_process(self._process, timeout=10)
            self._process = None

    def __enter__(self) -> Redis:
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self._base, ignore_errors=True)


class Sentinels:
    """A master, a replica, and three sentinels that watch over them as ``results``."""

    name = "results"

    def __init__(self) -> None:
        self.master = Redis()
        self.replica = Redis(config={"replicaof": f"127.0.0.1 {self.master.port}"})
        self.sentinels = [
            Redis(
                config={
                    "sentinel monitor": f"{self.name} 127.0.0.1 {self.master.port} 2",
                    "sentinel down-after-milliseconds": f"{self.name} 500",
                    "sentinel failover-timeout": f"{self.name} 2000",
                },
                arguments=("--sentinel",),
            )
            for _ in range(3)
        ]
        self._stack = ExitStack()

    @property
    def url(self) -> str:
        """The result backend's URL; ``master_name`` is :attr:`name`."""
        return ";".join(f"sentinel://127.0.0.1:{each.port}/0" for each in self.sentinels)

    def __enter__(self) -> Sentinels:
        with ExitStack() as stack:
            for server in (self.master, self.replica, *self.sentinels):
                stack.enter_context(server)
            _until(lambda: "master_link_status:up" in self.replica.cli("INFO", "replication"))
            _until(self._complete)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def masters(self) -> set[str]:
        """Return the ports that the sentinels name as the master's."""
        asked = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.name)
        return {each.cli(*asked).splitlines()[1] for each in self.sentinels}

    def _complete(self) -> bool:
        """Tell whether all sentinels know of each other and of the replica."""
        known = [each.cli("SENTINEL", "MASTER", self.name).split("\n") for each in self.sentinels]
        return all(
            state[state.index("num-other-sentinels") + 1] == "2"
            and state[state.index("num-slaves") + 1] == "1"
            for state in known
        )


def _until(condition: Any, timeout: float = 30.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError("Redis did not get ready in time")
        time.sleep(0.05)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
