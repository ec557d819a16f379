"""Celery's signatures, with a function of ours in place of ``apply_async``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, Self

from celery.canvas import Signature, chunks

if TYPE_CHECKING:
    _Signature = Signature[Any]
else:
    _Signature = Signature  # not generic in Celery 5.5

__all__ = ["RedirectedSignature", "celery_class"]


class RedirectedSignature(_Signature):
    """A signature that a function of ours calls, as it does the signatures made from this one.

    To Celery it is a signature like any other: it can be linked, serialised, and be a member of a
    group, chain or chord. Where Celery's own code calls it, as it does the members of its groups,
    Celery's ``apply_async`` runs.
    """

    _call: Callable[..., Any]
    #: Celery's class, which this one extends.
    _celery_class: Any = Signature

    @classmethod
    def of(cls, signature: Signature[Any], call: Callable[..., Any]) -> Self:
        """Return a signature that shares the content of another one.

        :param call: takes the signature, and what is passed to its ``apply_async``.
        """
        kind = _extended(vars(cls).get("_base", cls), celery_class(signature))
        redirected = kind.__new__(kind)
        redirected.update(signature)
        vars(redirected).update(vars(signature), _call=call)
        return redirected  # type: ignore[no-any-return]

    def _like(self, made: Any) -> Any:
        """Return what Celery made of this signature: another signature, mostly."""
        if not isinstance(made, Signature) or "_call" in vars(made):
            return made
        return self.of(made, self._call)

    def apply_async(  # type: ignore[override]
        self, args: Any = None, kwargs: Any = None, **options: Any
    ) -> Any:
        """Call it."""
        if _is_called_by_celery(self):
            return super().apply_async(args, kwargs, **options)
        return self._call(self, args, kwargs, **options)

    def clone(self, *args: Any, **kwargs: Any) -> Self:
        """Return a copy, as ``Signature.clone`` does."""
        return self._like(super().clone(*args, **kwargs))  # type: ignore[no-any-return]

    def partial(self, *args: Any, **kwargs: Any) -> Self:
        """Return a copy, as ``Signature.partial`` does."""
        return self._like(super().partial(*args, **kwargs))  # type: ignore[no-any-return]

    def __or__(self, other: Any) -> Any:
        return self._like(super().__or__(other))

    def __ror__(self, other: Any) -> Any:
        # Python asks this one first if ``other`` is of the class that it extends.
        if not isinstance(other, Signature):
            return NotImplemented
        return self._like(other.__or__(self))


class _GroupOfChunks:
    """The method that of all signatures only ``celery.canvas.chunks`` has."""

    def group(self: Any) -> Any:
        """Return the group that the chunks are called as."""
        return self._like(super().group())  # type: ignore[misc]


def celery_class(signature: Signature[Any]) -> Any:
    """Return a signature's class in Celery, whether or not it was redirected."""
    if isinstance(signature, RedirectedSignature):
        return signature._celery_class
    return type(signature)


@cache
def _extended(base: Any, kind: Any) -> Any:
    """Return the class that combines a class of ours with one of Celery's."""
    if kind is Signature:
        return base
    bases = (base, _GroupOfChunks, kind) if issubclass(kind, chunks) else (base, kind)
    own = {"__module__": base.__module__, "__doc__": base.__doc__}
    return type(base.__name__, bases, {**own, "_base": base, "_celery_class": kind})


def _is_called_by_celery(signature: Signature[Any]) -> bool:
    """Tell whether Celery's own code calls a signature, rather than a program.

    Celery calls the members of its own groups, chains and chords, and a task that replaces another
    one in a worker, and expects its own results. The arguments of the call do not tell: for an
    empty header, a chord calls the body by a mere ``delay``.
    """
    frame = sys._getframe(2)
    while frame.f_back is not None and frame.f_locals.get("self") is signature:
        frame = frame.f_back  # the signature's own methods, such as ``delay``
    return str(frame.f_globals.get("__name__")).partition(".")[0] == "celery"
