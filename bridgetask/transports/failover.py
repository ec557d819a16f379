"""In which order the brokers of a failover list are tried."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from kombu.connection import failover_strategies

__all__ = ["Failover", "Rounds"]

S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class Failover(Generic[S]):
    """The servers that can serve one purpose, and the order in which to try them."""

    servers: tuple[S, ...]
    #: Named strategy of kombu's, or a callable from the list of URLs to an iterator of them.
    strategy: str | Callable[[list[str]], Iterator[str]]
    urls: tuple[str, ...] = field(repr=False)

    def cycle(self) -> Iterator[S]:
        """Return the servers to try, for ever, beginning with the first one configured.

        Follows ``kombu.Connection.__init__``, which skips the first one that a strategy yields.
        """
        yield self.servers[0]
        if len(self.servers) == 1:
            while True:
                yield self.servers[0]
        by_url = dict(zip(self.urls, self.servers, strict=True))
        strategy = failover_strategies.get(self.strategy, self.strategy)
        order = strategy(list(self.urls))
        next(order)
        for url in order:
            yield by_url[url]


class Rounds(Generic[S]):
    """Yields servers in rounds, in each of which all have their turn.

    A strategy may repeat itself, as kombu's ``shuffle`` does, or leave servers out.
    """

    def __init__(self, failover: Failover[S]) -> None:
        self._failover = failover
        self._order = failover.cycle()
        #: The server that was tried last, or is to be tried first.
        self.current: S = next(self._order)

    def round(self) -> Iterator[S]:
        """Yield each server once, beginning with the last one that served."""
        untried = list(self._failover.servers)
        for _ in range(10 * len(untried)):
            if self.current in untried:
                untried.remove(self.current)
                yield self.current
            if not untried:
                break
            self.skip()
        for self.current in untried:
            yield self.current

    def skip(self) -> None:
        """Begin the next round with another server, if there is one."""
        self.current = next(self._order)
