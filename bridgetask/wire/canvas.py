"""Signatures, copied and bound to a view of the app, on which Celery's own code applies them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from celery.canvas import Signature, _chain, _chord, chunks, group, task_name_from
from celery.result import AsyncResult, GroupResult
from celery.utils.functional import _regen, regen

from ..errors import InvalidOption
from .signature import celery_class

if TYPE_CHECKING:
    from celery import Celery

    _AsyncResult = AsyncResult[Any]
else:
    _AsyncResult = AsyncResult  # not generic before Celery 5.6

__all__ = [
    "AT_ONCE",
    "SentGroup",
    "SentResult",
    "apply_in_steps",
    "bind",
    "group_of",
    "is_group_result",
    "is_large",
]

#: How many members of a group are called at once, while the event loop waits.
AT_ONCE = 100


class SentResult(_AsyncResult):
    """Celery's result of a call. It can't be waited for: a session receives the results."""

    backend: Any = None

    def __init__(
        self,
        id: str,  # noqa: A002
        *,
        task_name: str | None = None,
        parent: Any = None,
        **_: Any,
    ) -> None:
        self.id = id
        self.task_name = task_name
        self.parent = parent

    _ignored = False
    _cache = None

    def then(self, callback: Any, on_error: Any = None, weak: bool = False) -> Any:
        """Leave out what Celery would open its result consumer for."""


class SentGroup(GroupResult):
    """Celery's result of a group. It can't be waited for: a session receives the results."""

    def __init__(
        self,
        id: str | None = None,  # noqa: A002
        results: Any = None,
        parent: Any = None,
        **_: Any,
    ) -> None:
        self.id = id
        self.results = results
        self.parent = parent
        # The members of a generator get their ids when somebody asks for their results. Celery
        # does that here, before it writes the message with those ids.
        for _ in results or ():
            pass

    def then(self, callback: Any, on_error: Any = None, weak: bool = False) -> Any:
        """Leave out what Celery would open its result consumer for."""


def bind(signature: dict[str, Any], view: Celery, *, lazily: bool = False) -> Signature[Any]:
    """Return a copy of a signature, and of those in it, that belongs to ``view``.

    Signatures hold the task that made them, and the task its app: applied as they are, they
    would go to that app's own connection.

    :param lazily: whether to copy the members of a group or a chord one by one, as they are called.
    :raises InvalidOption: it holds something else than signatures, or one of an unknown type.
    """
    if not isinstance(signature, dict):
        raise InvalidOption("task", f"must consist of signatures, not of {signature!r}")
    if not isinstance(signature, Signature):  # a serialised one
        kind = signature.get("subtask_type")
        if kind and kind not in Signature.TYPES:
            raise InvalidOption("task", f"holds a signature of the unknown type {kind!r}")
        signature = Signature.from_dict(signature)
    kind = celery_class(signature)
    bound: Any = kind.__new__(kind)
    bound.update(signature)
    bound._app = view
    bound._type = None
    bound.options = _copied(signature.options, {})
    bound.kwargs = kwargs = dict(signature.kwargs)
    if isinstance(signature, _chain):
        bound._use_link = signature._use_link
        bound._frozen = None
    if isinstance(signature, group) and lazily:
        # No list: many members are called one by one, and need not all be held.
        kwargs["tasks"] = (bind(each, view) for each in signature.tasks)
    elif isinstance(signature, (_chain, group)):
        kwargs["tasks"] = _bind_all(signature.tasks, view, lazily)
    elif isinstance(signature, _chord):
        kwargs["header"] = _bind_all(signature.tasks, view, lazily)
        kwargs["body"] = signature.body and bind(signature.body, view)
    return bound  # type: ignore[no-any-return]


def _copied(options: Any, copies: dict[int, Any]) -> Any:
    """Return a copy of options that Celery may alter.

    Linked signatures are not applied here, so they stay the same objects. ``deepcopy`` would make
    plain dicts of them, and pickle writes those in another way.

    :param copies: the copies made so far, by the ids of their originals: YAML writes an object that
        occurs twice as one object.
    """
    copied = copies.get(id(options), options)
    if copied is options and type(options) is dict:
        copied = {name: _copied(value, copies) for name, value in options.items()}
    elif copied is options and type(options) is list:
        copied = [_copied(each, copies) for each in options]
    copies[id(options)] = copied
    return copied


def _bind_all(signatures: Any, view: Celery, lazily: bool) -> Any:
    if isinstance(signatures, dict):  # a chord's header that is a group
        header: Any = bind(signatures, view, lazily=lazily)
        if lazily:
            header.tasks = _regen_begun(header.tasks)  # Celery counts it first
        return header
    bound = (bind(each, view) for each in signatures)
    if type(signatures) in {list, tuple} and not lazily:
        return type(signatures)(bound)
    return _regen_begun(bound) if lazily else regen(bound)  # as lazy as it was


def _regen_begun(signatures: Iterable[Any]) -> Any:
    """Return signatures that are made when somebody asks for them, and can be iterated again.

    Celery's ``regen`` looks at its first item when somebody asks whether it is empty. That was
    asked of the one that this replaces, so it is asked here as well.
    """
    made = regen(signatures)
    bool(made)
    return made


def group_of(members: Iterable[Signature[Any]]) -> Signature[Any]:
    """Return Celery's group of these signatures."""
    return group(list(members))


def is_group_result(result: object) -> bool:
    """Tell whether this is Celery's result of a group."""
    return isinstance(result, GroupResult)


def is_large(signature: Signature[Any]) -> bool:
    """Tell whether a signature is better called in steps: a large group, chunks or chord.

    A generator of members is, too. Only its first member is made to find out: nobody knows how many
    follow, nor how long it takes to make them.
    """
    if isinstance(signature, chunks):
        return True
    if isinstance(signature, group):
        return _are_many(signature.tasks)
    if isinstance(signature, _chord):
        header = getattr(signature.tasks, "tasks", signature.tasks)
        # Celery calls a list of plain tasks as it calls a generator.
        return _are_many(header) and (
            isinstance(header, _regen) or all(each.get("subtask_type") is None for each in header)
        )
    return False


def _are_many(signatures: Iterable[Any]) -> bool:
    most = AT_ONCE if getattr(signatures, "_regen__done", True) else 0
    return len(list(islice(iter(signatures), most + 1))) > most


def apply_in_steps(
    signature: Signature[Any],
    args: Sequence[Any] | None,
    kwargs: Mapping[str, Any] | None,
    options: dict[str, Any],
) -> tuple[Any, SentGroup, Iterator[SentResult]]:
    """Follow the ``apply_async`` of a large signature, one member at a time.

    :returns: the result of the call; the result of the group, with its first members; and the
        steps. Each step calls one member and returns its result.
    """
    if not isinstance(signature, _chord):
        sent, steps = _apply_group(signature, args, kwargs, options)
        return sent, sent, steps
    called: list[tuple[SentGroup, Iterator[SentResult]]] = []
    run = signature.run

    def run_with_steps(header: Any, *args: Any, **options: Any) -> Any:
        def apply_header(args: Any = None, kwargs: Any = None, **options: Any) -> SentGroup:
            called.append(_apply_group(header, args, kwargs, options))
            return called[0][0]

        header.apply_async = apply_header
        return run(header, *args, **options)

    bound: Any = signature
    bound.run = run_with_steps
    result = signature.apply_async(args, kwargs, **options)
    return result, *called[0]


def _apply_group(
    signature: Signature[Any],
    args: Sequence[Any] | None,
    kwargs: Mapping[str, Any] | None,
    options: dict[str, Any],
) -> tuple[SentGroup, Iterator[SentResult]]:
    """Follow ``group.apply_async``."""
    members: Any = signature
    if isinstance(signature, chunks):
        options.setdefault("route_name", task_name_from(signature.kwargs["task"]))
        members = signature.group()
    for link in ("link", "link_error"):
        if options.pop(link, None) is not None:
            raise TypeError(f"Cannot add {link} to group: do that on individual tasks")
    app = members.app
    options, group_id, root_id = members._freeze_gid(options)
    tasks = members._prepared(members.tasks, [], group_id, root_id, app)
    results: list[SentResult] = []
    sent = app.GroupResult(group_id, results)

    def steps(applied: Iterable[SentResult]) -> Iterator[SentResult]:
        parent = app.current_worker_task
        for result in applied:
            if len(results) == AT_ONCE and not parent:
                results.clear()  # they have their handles by now
            results.append(result)
            yield result
        if parent:
            parent.add_trail(sent)

    return sent, steps(_apply_members(tasks, app, args or (), kwargs or {}, options))


def _apply_members(
    tasks: Iterator[tuple[Any, SentResult, str]],
    app: Any,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    options: dict[str, Any],
) -> Iterator[SentResult]:
    """Follow ``group._apply_tasks``; pause after calling a member, before making the next."""
    header_of = options.pop("chord", None)
    options.pop("group_index", None)
    options |= {"args": args, "kwargs": kwargs, "add_to_parent": False}
    size = 0
    with app.producer_or_acquire() as producer:
        current, following = next(tasks, None), next(tasks, None)
        while current is not None:
            signature, result, group_id = current
            chord = header_of if header_of is not None else signature.options.get("chord")
            size += _chord._descend(signature)
            if chord is not None and following is None:
                app.backend.set_chord_size(group_id, size)
            signature.apply_async(producer=producer, chord=chord, **options)
            yield result
            current, following = following, next(tasks, None)
