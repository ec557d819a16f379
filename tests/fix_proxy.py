"""A TCP proxy in a process of its own, told by verbs what harm to do; and a black hole."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal

_PROGRAM = Path(__file__).parent / "proxy_process.py"

#: ``up`` is from the client to the server.
Way = Literal["up", "down", "both"]


class Proxy:
    """A proxy on loopback in front of a server. It carries all faithfully until told otherwise.

    A verb has taken effect when it returns. It applies to the connections that are open, and to
    those that come later, until :meth:`restore`. One that was there when bytes were dropped stays
    dead.

    :param upstream: the server's port on loopback.
    :param protocol: ``"amqp"`` lets confirms be told apart; anything else is not looked into.
    """

    def __init__(self, upstream: int, protocol: str = "amqp") -> None:
        self._command = [sys.executable, "-S", str(_PROGRAM), str(upstream), protocol]
        self._process: subprocess.Popen[str] | None = None
        self.port = 0

    def cut(self) -> None:
        """Reset all connections."""
        self._tell("cut")

    def force_close(self) -> None:
        """Close all connections in the broker's name, as an operator makes it do (AMQP only)."""
        self._tell("force_close")

    def refuse(self) -> None:
        """Refuse new connections."""
        self._tell("refuse")

    def stall(self) -> None:
        """Freeze: go on accepting, and neither take nor give a byte."""
        self._change("both", stalled=True)

    def drop(self, way: Way = "both") -> None:
        """Lose all bytes, and the end of connections, too."""
        self._change(way, dropping=True)

    def delay(self, seconds: float, way: Way = "both") -> None:
        """Carry each byte so many seconds later."""
        self._change(way, delay=seconds)

    def throttle(self, bytes_per_second: float, way: Way = "both") -> None:
        """Carry so many bytes a second at most."""
        self._change(way, bytes_per_second=bytes_per_second)

    def half_close(self, way: Literal["up", "down"] = "down") -> None:
        """End one direction of all connections; the other one stays open."""
        self._tell("half_close", direction=way)

    def hold_confirms(self, seconds: float) -> None:
        """Carry publisher confirms so many seconds later, and all else at once."""
        self._change("down", hold_confirms=seconds)

    def swallow_confirms(self) -> None:
        """Lose publisher confirms, and nothing else."""
        self.hold_confirms(float("inf"))

    def restore(self) -> None:
        """Carry all faithfully again, but for the connections that are dead."""
        self._tell("restore")

    def heal(self) -> None:
        """Be as new: reset all connections, and carry the next ones faithfully."""
        self.cut()
        self.restore()

    @property
    def accepted(self) -> int:
        """How many connections were accepted so far."""
        return int(self._tell("status")["accepted"])

    @property
    def open(self) -> int:
        """How many connections are open."""
        return int(self._tell("status")["open"])

    def start(self) -> None:
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.port = self._tell("listen")

    def stop(self) -> None:
        if self._process is not None:
            with self._process:  # closes its input, and waits for its end
                pass

    def _change(self, way: Way, **rules: Any) -> None:
        self._tell("change", direction=way, rules=rules)

    def _tell(self, verb: str, **arguments: Any) -> Any:
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"verb": verb, **arguments}) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def __enter__(self) -> Proxy:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()


@contextmanager
def black_hole() -> Iterator[int]:
    """Yield a port that answers no attempt to connect: its queue of connections is full."""
    with ExitStack() as stack:
        listening = stack.enter_context(socket.socket())
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listening.getsockname())
        yield listening.getsockname()[1]
