"""Real servers for tests and for the demo: private data, free ports, stopped at the end."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import amqp

_RABBITMQ_BIN = next(
    (
        path
        for path in (
            Path("/usr/lib/rabbitmq/bin"),
            Path("/opt/homebrew/opt/rabbitmq/sbin"),
            Path("/usr/local/opt/rabbitmq/sbin"),
        )
        if path.exists()
    ),
    None,
)


#: Who tests log in as. guest's password can't be told from its name where it should not be.
TESTER, TESTERS_PASSWORD = "tester", "t3sters-s3cret"


def free_ports(count: int) -> list[int]:
    """Return ports on loopback that nobody uses."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _hashed(password: str) -> str:
    salt = os.urandom(4)
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()


class RabbitMQ:
    """A private RabbitMQ node on loopback.

    :param users: name -> password, beside ``guest``; users named ``nobody...`` get no permission.
    :param tls: paths of ``ca``, ``cert`` and ``key`` for a TLS listener that asks for certificates.
    :param config: further lines of ``rabbitmq.conf``.
    :param cluster: a running node to make a cluster with.
    """

    def __init__(
        self,
        *,
        users: Mapping[str, str] | None = None,
        virtual_hosts: Sequence[str] = ("/",),
        tls: Mapping[str, Path] | None = None,
        config: Mapping[str, Any] | None = None,
        plugins: Sequence[str] = (),
        cluster: RabbitMQ | None = None,
    ) -> None:
        if _RABBITMQ_BIN is None:
            raise RuntimeError("RabbitMQ is not installed")
        self.port, self.tls_port, self._dist_port, self._epmd_port = free_ports(4)
        self._cluster = cluster
        if cluster is not None:
            self._epmd_port = cluster._epmd_port
        self._base = Path(tempfile.mkdtemp(prefix="bridgetask-rabbitmq-"))
        self._process: subprocess.Popen[bytes] | None = None
        self.name = f"bridgetask{self.port}@localhost"
        settings = {
            "listeners.tcp.default": f"127.0.0.1:{self.port}",
            "load_definitions": str(self._base / "definitions.json"),
            "auth_mechanisms.1": "PLAIN",
            "auth_mechanisms.2": "AMQPLAIN",
            "loopback_users": "none",
            "log.file.level": "info",
            **(config or {}),
        }
        if tls is not None:
            settings |= {
                "listeners.ssl.default": f"127.0.0.1:{self.tls_port}",
                "ssl_options.cacertfile": str(tls["ca"]),
                "ssl_options.certfile": str(tls["cert"]),
                "ssl_options.keyfile": str(tls["key"]),
                "ssl_options.verify": "verify_peer",
                "ssl_options.fail_if_no_peer_cert": "true",
                "ssl_cert_login_from": "common_name",
                "auth_mechanisms.3": "EXTERNAL",
            }
        (self._base / "rabbitmq.conf").write_text(
            "".join(f"{key} = {value}\n" for key, value in settings.items())
        )
        (self._base / "plugins").write_text(f"[{','.join(plugins)}].")
        accounts = {"guest": "guest", TESTER: TESTERS_PASSWORD, **(users or {})}
        definitions = {
            "users": [
                {"name": name, "password_hash": _hashed(password), "tags": "administrator"}
                for name, password in accounts.items()
            ],
            "vhosts": [{"name": name} for name in virtual_hosts],
            "permissions": [
                {"user": name, "vhost": vhost, "configure": ".*", "write": ".*", "read": ".*"}
                for name in accounts
                for vhost in virtual_hosts
                if not name.startswith("nobody")
            ],
        }
        (self._base / "definitions.json").write_text(json.dumps(definitions))
        self._environment = {
            **os.environ,
            "HOME": str(self._base),
            "RABBITMQ_NODENAME": self.name,
            "RABBITMQ_MNESIA_BASE": str(self._base / "data"),
            "RABBITMQ_LOG_BASE": str(self._base / "log"),
            "RABBITMQ_CONFIG_FILE": str(self._base / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self._base / "plugins"),
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "RABBITMQ_PID_FILE": str(self._base / "pid"),
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "LC_ALL": "C.UTF-8",
        }

    def url(
        self, virtual_host: str = "/", user: str = TESTER, password: str = TESTERS_PASSWORD
    ) -> str:
        """Return the AMQP URL of the node."""
        path = "/" if virtual_host == "/" else quote(virtual_host, safe="")
        return f"amqp://{quote(user)}:{quote(password)}@127.0.0.1:{self.port}/{path}"

    def start(self, timeout: float = 180.0) -> None:
        """Start the node, or start it again; return when it accepts connections."""
        assert _RABBITMQ_BIN is not None
        if self._cluster is not None:
            self._share_cookie(self._cluster)
        output = self._base / "output"
        with output.open("wb") as stream:
            self._process = subprocess.Popen(
                [_RABBITMQ_BIN / "rabbitmq-server"],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + timeout
        while "completed with" not in output.read_text(errors="replace"):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"RabbitMQ did not start:\n{output.read_text()[-4000:]}")
            time.sleep(0.05)

    # What other clients may ask and do as well: rabbitmqctl takes a second of CPU time.

    def delete_queue(self, name: str) -> None:
        """Delete a queue."""
        with self._connected() as connection:
            connection.channel().queue_delete(name)

    def messages(self, queue: str, virtual_host: str = "/") -> int:
        """Return how many messages wait in a queue; none if it is not there."""
        declared = self._declared(queue, virtual_host)
        return declared.message_count if declared else 0

    def consumers(self, queue: str, virtual_host: str = "/") -> int:
        """Return how many consume a queue; none if it is not there."""
        declared = self._declared(queue, virtual_host)
        return declared.consumer_count if declared else 0

    def has_queue(self, queue: str, virtual_host: str = "/") -> bool:
        """Tell whether there is a queue."""
        try:
            return self._declared(queue, virtual_host) is not None
        except amqp.ResourceLocked:  # another connection's alone
            return True

    def _declared(self, queue: str, virtual_host: str) -> Any:
        with self._connected(virtual_host) as connection:
            try:
                return connection.channel().queue_declare(queue, passive=True)
            except amqp.NotFound:
                return None

    def _connected(self, virtual_host: str = "/") -> amqp.Connection:
        return amqp.Connection(
            f"127.0.0.1:{self.port}",
            userid=TESTER,
            password=TESTERS_PASSWORD,
            virtual_host=virtual_host,
        )

    # By rabbitmqctl.

    def ctl(self, *arguments: str) -> str:
        """Run ``rabbitmqctl`` against the node and return what it prints."""
        assert _RABBITMQ_BIN is not None
        finished = subprocess.run(
            [_RABBITMQ_BIN / "rabbitmqctl", "--quiet", *arguments],
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        if finished.returncode:
            raise RuntimeError(f"rabbitmqctl {arguments} failed: {finished.stderr}")
        return finished.stdout

    def names(self, what: str, *columns: str, virtual_host: str = "/") -> list[list[str]]:
        """Return the rows of ``rabbitmqctl list_<what>``."""
        selected = () if what == "connections" else ("-p", virtual_host)
        printed = self.ctl(f"list_{what}", *selected, "--no-table-headers", *columns)
        return [line.split("\t") for line in printed.splitlines() if line]

    # Harm.

    def kill(self) -> None:
        """Kill the node as a power cut would. :meth:`start` starts it again, with its data."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(10)

    def close_all_connections(self) -> None:
        """Close all connections, with a reason."""
        self.ctl("close_all_connections", "told to")

    def set_memory_alarm(self, on: bool) -> None:
        """Raise or clear the alarm by which publishers are blocked for want of memory."""
        self.ctl("set_vm_memory_high_watermark", "0" if on else "0.4")

    def set_disk_alarm(self, on: bool) -> None:
        """Raise or clear the alarm by which publishers are blocked for want of disk space."""
        self.ctl("set_disk_free_limit", "1000000GB" if on else "50MB")

    def join(self) -> None:
        """Make a cluster with the node that was given as ``cluster``."""
        assert self._cluster is not None
        self.ctl("stop_app")
        self.ctl("reset")
        self.ctl("join_cluster", self._cluster.name)
        self.ctl("start_app")

    def _share_cookie(self, other: RabbitMQ) -> None:
        cookie = self._base / ".erlang.cookie"
        if not cookie.exists():
            shutil.copy(other._base / ".erlang.cookie", cookie)

    def stop(self) -> None:
        """Stop the node and its port mapper, and remove their data."""
        if self._process is not None:
            stop_process(self._process, timeout=30)
        if self._process is not None and self._cluster is None:
            subprocess.run(
                ["epmd", "-port", str(self._epmd_port), "-kill"],
                env=self._environment,
                capture_output=True,
                check=False,
            )
        shutil.rmtree(self._base, ignore_errors=True)

    def __enter__(self) -> RabbitMQ:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()


class Worker:
    """A stock prefork Celery worker in a process of its own.

    :param app: import path of the Celery app.
    :param environment: added to the worker's environment.
    :param folder: where to run it, the project's own unless given.
    :param options: further options of ``celery worker``.
    :param covered: its tasks use bridgetask, so that their coverage is to be measured, too.
    """

    def __init__(
        self,
        app: str,
        *,
        environment: Mapping[str, str] | None = None,
        queues: Sequence[str] = (),
        concurrency: int = 2,
        name: str = "worker",
        folder: Path | None = None,
        options: Sequence[str] = (),
        covered: bool = False,
    ) -> None:
        self.name = f"{name}@{socket.gethostname()}"
        self.output: list[str] = []
        self._folder = folder or Path(__file__).parent.parent
        self._environment = {**os.environ, "C_FORCE_ROOT": "1", **(environment or {})}
        if not covered:
            self._environment.pop("COVERAGE_PROCESS_CONFIG", None)
        self._command = [
            *(sys.executable, "-m", "celery", "-A", app, "worker"),
            *("--loglevel", "INFO", "--hostname", self.name, "--concurrency", str(concurrency)),
            *("--without-gossip", "--without-mingle"),
            *(("-Q", ",".join(queues)) if queues else ()),
            *options,
        ]
        self._process: subprocess.Popen[str] | None = None
        self._ready = threading.Event()
        self._reader: threading.Thread | None = None

    def start(self, timeout: float = 90.0) -> None:
        """Start the worker; return when it consumes."""
        self._process = subprocess.Popen(
            self._command,
            cwd=self._folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, name="worker output", daemon=True)
        self._reader.start()
        self._ready.wait(timeout)
        if not any(" ready." in line for line in self.output):
            self.stop()
            raise RuntimeError("the Celery worker did not start:\n" + "".join(self.output))

    def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.output.append(line)
            if " ready." in line:
                self._ready.set()
        self._ready.set()

    def kill(self) -> None:
        """Kill the worker and its children. :meth:`start` starts it again."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGKILL)
        self._ready.clear()
        self.stop()

    def stop(self) -> None:
        """Stop the worker and its children."""
        if self._process is not None:
            stop_process(self._process, timeout=10)
            assert self._process.stdout is not None
            assert self._reader is not None
            self._reader.join(10)
            self._process.stdout.close()

    def __enter__(self) -> Worker:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()


def stop_process(process: subprocess.Popen[Any], timeout: float) -> None:
    """Ask a process to end, and end what is left of its group."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(10)
