"""Says which commands of Redis something is, by kombu's own channel. Its names are used here alone.

A channel of kombu's routes, and asks a redis-py client for what it wants done. Here that client
notes commands in place of sending them. So keys, envelopes, prefixes, priorities, scripts and
topics are kombu's, of whichever version, or of whatever class the app's transport has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, TypeAlias

import kombu.transport.redis  # noqa: F401 (kombu would when a channel is made, and so block)
from kombu import Connection
from redis import ConnectionPool

from ...errors import InvalidOption
from ...wire.message import Declaration, OutgoingMessage
from ...wire.virtual import raw_message

__all__ = ["Command", "KombuCommands"]

#: A command and its arguments: bytes, texts and numbers.
Command: TypeAlias = tuple[Any, ...]


class KombuCommands:
    """The commands that a channel of kombu's would send, for one connection after the other.

    What kombu remembers of what was declared, such as the types of exchanges, is remembered here.

    :param connection: one of the app's, which nothing connects.
    """

    def __init__(self, connection: Connection) -> None:
        self._noted: list[Command] = []
        transport: Any = connection.transport
        #: Not ``Any``'s alone: mypy can't look into a class that is made at run time.
        self._channel: Any = _silent_channel(transport.Channel, self._noted.append)(transport)
        transport.cycle.poller.close()  # of sockets, of which there will be none
        self._noted.clear()

    @property
    def client_parameters(self) -> Mapping[str, Any]:
        """What kombu would make redis-py's client with."""
        parameters: Mapping[str, Any] = self._channel._connparams()
        return parameters

    @property
    def options(self) -> Mapping[str, Any]:
        """The transport's options."""
        options: Mapping[str, Any] = self._channel.connection.client.transport_options
        return options

    def forget_bindings(self) -> None:
        """Let everything be declared again, but remember the types of exchanges."""
        state = self._channel.state
        state.bindings.clear()
        state.queue_index.clear()

    # Declaring.

    def declare(self, declarations: Iterable[Declaration]) -> list[Command]:
        """Return the commands that declare queues and exchanges.

        :raises InvalidOption: the exchange is of a type that kombu's channel does not have.
        :raises Exception: whatever kombu raises for what can't be declared.
        """
        self._noted.clear()
        for each in declarations:
            kind = each.arguments.get("type") or "direct"
            if each.operation == "exchange_declare" and kind not in self._channel.exchange_types:
                raise InvalidOption("exchange_type", f"{kind!r} is none that Redis can serve as")
            getattr(self._channel, each.operation)(each.name, **each.arguments)
        return self._taken()

    def delete_queue(self, queue: str) -> list[Command]:
        """Return the commands that delete a queue that was declared here, and its bindings."""
        self._noted.clear()
        self._channel.queue_delete(queue)
        return self._taken()

    def purge(self, queue: str) -> list[Command]:
        """Return the commands that empty a queue. Some answer with how many messages there were."""
        self._noted.clear()
        self._channel._purge(queue)
        return self._taken()

    # Publishing.

    def needs_bindings(self, exchange: str) -> bool:
        """Tell whether the queues that are bound to an exchange decide where a message goes."""
        return bool(exchange) and self._channel.typeof(exchange).type != "fanout"

    def read_bindings(self, exchange: str) -> Command:
        """Return the command that reads what is bound to an exchange."""
        channel = self._channel
        return ("SMEMBERS", channel.global_keyprefix + channel.keyprefix_queue % (exchange,))

    def know_bindings(self, exchange: str, members: Iterable[bytes]) -> None:
        """Take what :meth:`read_bindings` was answered.

        :raises ValueError: that is not what kombu has written.
        """
        separator = self._channel.sep
        table = [tuple(member.decode().split(separator)) for member in members]
        if any(len(binding) != 3 for binding in table):
            raise ValueError("a binding of other than three parts")
        self._channel.tables[exchange] = table

    def publish(self, message: OutgoingMessage) -> list[Command]:
        """Return the commands that publish a message, none if no queue is bound.

        :raises Exception: whatever kombu raises for what can't be published.
        """
        self._noted.clear()
        channel = self._channel
        raw = raw_message(message, as_text=not _encodes(channel.body_encoding))
        channel.basic_publish(raw, message.exchange, message.routing_key)
        return self._taken()

    # Receiving.

    def keys(self, queue: str) -> list[str]:
        """Return the keys of a queue, that of messages without a priority first."""
        channel = self._channel
        first = channel._q_for_pri(queue, 0)
        keys = [first, *(channel._q_for_pri(queue, step) for step in channel.priority_steps)]
        return [channel.global_keyprefix + key for key in dict.fromkeys(keys)]

    def topics(self, queue: str) -> list[str]:
        """Return the patterns to listen to for the messages of a fanout exchange's queue."""
        channel = self._channel
        if hasattr(channel, "_get_subscribe_topics"):  # since kombu 5.7
            topics = channel._get_subscribe_topics(queue)
        else:
            topics = [channel._get_subscribe_topic(queue)]
        return [channel.global_keyprefix + topic for topic in topics]

    def _taken(self) -> list[Command]:
        taken, self._noted[:] = self._noted[:], []
        return taken


def _encodes(body_encoding: str | None) -> bool:
    return bool(body_encoding) and str(body_encoding).lower() != "utf-8"


def _silent_channel(channel_class: Any, note: Callable[[Command], None]) -> Any:
    """Return a class of channels that note what they would send."""

    class SilentChannel(channel_class):  # type: ignore[misc]
        def __init__(self, transport: Any) -> None:
            #: What is bound to exchanges, as it was read last.
            self.tables: dict[str, list[tuple[str, ...]]] = {}
            self._silent_client: Any = None
            self._fanout_queues: dict[str, Any] = {}  # else it is that of all channels
            super().__init__(transport)
            self._get_pool()  # kombu formats the prefix of topics on this occasion

        def _create_client(self, asynchronous: bool = False) -> Any:
            if self._silent_client is None:
                self._silent_client = _silent_client(self.Client, note)
            return self._silent_client

        def _sentinel_managed_pool(self, asynchronous: bool = False) -> Any:
            return ConnectionPool()  # never asked for a connection

        def _size(self, queue: str) -> int:
            return 0

        def get_table(self, exchange: str) -> list[tuple[str, ...]]:
            return self.tables[exchange]

    return SilentChannel


def _silent_client(client_class: Any, note: Callable[[Command], None]) -> Any:
    """Return a client like those that kombu makes, which notes commands.

    :param client_class: redis-py's, or one of kombu's that prefixes keys.
    """
    keywords: dict[str, Any] = {}
    if isinstance(client_class, partial):
        client_class, keywords = client_class.func, client_class.keywords

    class SilentClient(client_class):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(connection_pool=ConnectionPool(), **keywords)
            self._scripts: dict[str, str] = {}

        def register_script(self, script: str) -> Any:
            registered = super().register_script(script)
            self._scripts[registered.sha] = script
            return registered

        def execute_command(self, *command: Any, **_: Any) -> None:
            self._note(self._prefix_args(command) if keywords else command)

        def pipeline(self, *args: Any, **options: Any) -> Any:
            pipeline = super().pipeline(*args, **options)

            def execute(*_: Any) -> list[int]:
                commands = [tuple(command) for command, _ in pipeline.command_stack]
                note(("MULTI",))
                for command in commands:
                    self._note(command)
                note(("EXEC",))
                pipeline.command_stack.clear()
                return [0] * len(commands)

            pipeline.execute = execute
            return pipeline

        def _note(self, command: Iterable[Any]) -> None:
            name, *arguments = command
            if name == "EVALSHA":  # the server may not have the script
                name, arguments[0] = "EVAL", self._scripts[arguments[0]]
            note((name, *arguments))

    return SilentClient()
