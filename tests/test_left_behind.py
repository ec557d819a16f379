"""The watch over what tests leave behind sees a connection."""

from __future__ import annotations

import socket

from .conftest import open_connections


def test_an_open_connection_is_seen_and_other_descriptors_are_not() -> None:
    before = open_connections()
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as unconnected:
        one, other = socket.socketpair()
        with one, other, socket.create_connection(server.getsockname()) as client:
            accepted, _ = server.accept()
            with accepted:
                found = open_connections() - before
                assert found == {client.fileno(), accepted.fileno()}
                assert unconnected.fileno() not in found
    assert open_connections() <= before
