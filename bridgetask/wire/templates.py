"""Templates make the messages of calls that are like earlier ones, in place of Celery's code.

Celery reads its settings, routes, queues and signals for each call, and mostly finds the same as
for the call before. So a template keeps the message of a call, and what that message depends on.
While nothing of that has changed, the template makes the messages of calls with the same name and
options. kombu serialises and compresses the arguments, as for any message.

Celery's code makes the messages of all other calls: those with options that are no plain values,
dates, links, stamps or chords, by task protocol 1, inside of tasks, with receivers of signals, with
routers that are code, with ``task-sent`` events, and where somebody has replaced methods of Celery
or kombu. A template is made from the second call of its kind, and is used only if it makes the same
message as Celery's code made.

Which things a message depends on is an assumption about Celery's code. So templates are used only
with tested versions of Celery and kombu. And for every so many uses, and after a while without any,
Celery's code makes the message again, which is sent, and compared with the template's.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

import celery.app.base
import kombu
from celery import signals
from celery._state import _task_stack

from .canvas import SentResult
from .dependencies import Dependencies, NoTemplate
from .observing import Observations, observing
from .producer import RecordingProducer
from .tape import Tape
from .template import Template, differences
from .tested_versions import are_tested

if TYPE_CHECKING:
    from celery import Celery

__all__ = ["Templates"]

logger: logging.Logger = logging.getLogger(__name__)

#: How many kinds of calls are kept.
_REMEMBERED = 1024
#: After so many uses a template is compared with Celery's code,
_COMPARED_EVERY = 1000
#: and after so many seconds without a use.
_IDLE = 1.0
#: Options that do not count for the kind of a call: ids, which differ from call to call, and
#: objects that Celery's canvas and tasks pass.
_OF_THE_CALL = frozenset(
    {"task_id", "group_id", "group_index", "root_id", "parent_id", "producer", "result_cls"}
)
_PLAIN = frozenset({str, int, float, bool, type(None)})
#: Options that are relative to the time of the call.
_TIMES = frozenset({"countdown", "eta", "expires"})

#: The task's name and the options, which all calls of one kind have in common.
_Kind = tuple[Any, ...]


class _State(Enum):
    """Why a kind of calls has no template."""

    #: One call was made so far, or one since the last template was out of date.
    SEEN = 1
    #: There can be no template.
    UNFIT = 2
    #: Its template made another message than Celery's code.
    DIFFERED = 3


@dataclass(frozen=True, slots=True)
class _Call:
    """A call of ``Celery.send_task``."""

    by_celery: Callable[..., Any]
    name: str
    args: Any
    kwargs: Any
    task_type: Any
    options: Mapping[str, Any]

    def make(self) -> Any:
        return self.by_celery(
            self.name, self.args, self.kwargs, task_type=self.task_type, **self.options
        )


class Templates:
    """Makes the calls of an app's view: by Celery's code, or by a template.

    :param kept_settings: the settings that Celery's sender read when it was made, and keeps.
    :param clock: returns the time in seconds.
    """

    def __init__(
        self,
        app: Celery,
        producer: RecordingProducer,
        tape: Tape,
        kept_settings: Mapping[str, Any],
        clock: Callable[[], float],
    ) -> None:
        self._app = app
        self._amqp: Any = app.amqp
        self._producer = producer
        self._tape = tape
        self._kept_settings = kept_settings
        self._clock = clock
        self._kinds: dict[_Kind, Template | _State] = {}

    @property
    def in_use(self) -> list[Template]:
        """The templates that there are."""
        return [each for each in list(self._kinds.values()) if isinstance(each, Template)]

    def call(
        self,
        by_celery: Callable[..., Any],
        name: str,
        args: Any,
        kwargs: Any,
        task_type: Any,
        options: dict[str, Any],
    ) -> Any:
        """Record what ``Celery.send_task`` sends for a call, and return Celery's result.

        :param by_celery: ``Celery.send_task`` of the view.
        """
        kind = _kind(name, task_type, options)
        if kind is None or not _is_ordinary():
            return by_celery(name, args, kwargs, task_type=task_type, **options)
        template = self._kinds.get(kind)
        if not isinstance(template, Template) or not self._may_use(template):
            call = _Call(by_celery, name, args, kwargs, task_type, options)
            return self._call_by_celery(call, kind, template)
        task_id = options.get("task_id") or celery.app.base.uuid()
        self._tape.add(template.fill(self._amqp, self._producer, task_id, args, kwargs, options))
        result = (options.get("result_cls") or SentResult)(task_id)
        result.ignored = template.ignored
        return result

    def _may_use(self, template: Template) -> bool:
        """Tell whether a template is up to date, and need not be compared now."""
        now = self._clock()
        template.uses += 1
        if template.uses >= _COMPARED_EVERY or now - template.used_at > _IDLE:
            return False
        template.used_at = now
        return template.dependencies.are_current()

    def _call_by_celery(self, call: _Call, kind: _Kind, known: Template | _State | None) -> Any:
        if known is None:
            self._remember(kind)
        elif known is _State.SEEN:
            return self._learn(call, kind)
        elif isinstance(known, Template):
            if known.dependencies.are_current():
                return self._compare(call, kind, known)
            self._kinds[kind] = _State.SEEN
        return call.make()

    def _remember(self, kind: _Kind) -> None:
        if len(self._kinds) >= _REMEMBERED:
            known = list(self._kinds.items())  # other threads may add to it
            self._kinds = {key: each for key, each in known if each is _State.DIFFERED}
        self._kinds[kind] = _State.SEEN

    def _compare(self, call: _Call, kind: _Kind, template: Template) -> Any:
        """Make a call by Celery's code; drop the template if it makes another message."""
        with observing() as observations:
            result = call.make()
        found = ["the number of messages"]
        if len(observations.published) == 1:
            [published] = observations.published
            found = template.compare(self._amqp, published, call.args, call.kwargs, call.options)
        if result.ignored != template.ignored:
            found.append("ignored")
        template.uses, template.used_at = 0, self._clock()
        if found:
            self._kinds[kind] = _State.DIFFERED
            logger.warning(
                "The template for %s made another message than Celery's code, in %s. It is dropped,"
                " and messages like this one are made by Celery's code from now on",
                call.name,
                ", ".join(found),
            )
        return result

    def _learn(self, call: _Call, kind: _Kind) -> Any:
        """Make a call by Celery's code, and make a template from it if that is possible."""
        if not are_tested(celery.__version__, kombu.__version__):
            self._kinds[kind] = _State.UNFIT
            return call.make()
        with observing() as observations:
            result = call.make()
        try:
            self._kinds[kind] = self._template(call, observations, result)
        except NoTemplate:
            self._kinds[kind] = _State.UNFIT
        return result

    def _template(self, call: _Call, observations: Observations, result: Any) -> Template:
        """Return the template of a call that Celery's code has made.

        :raises NoTemplate: it would not make the same message.
        """
        name, options = call.name, call.options
        if len(observations.published) != 1:
            raise NoTemplate("several messages")
        [published] = observations.published
        dependencies = Dependencies(
            self._app,
            name if call.task_type is None else None,
            options.get("route_name") or name,
            observations,
            self._kept_settings,
        )
        template = Template(published, options, observations.settings, result.ignored, dependencies)
        made = published.message
        again = template.fill(
            self._amqp, self._producer, made.task_id or "", call.args, call.kwargs, options
        )
        if differences(again, made) or not dependencies.are_current():
            raise NoTemplate("not the same message")
        template.used_at = self._clock()
        return template


def _kind(name: str, task_type: Any, options: Mapping[str, Any]) -> _Kind | None:
    """Return the kind of a call; None if it can have no template."""
    kind: list[Any] = [name, task_type is None]
    for option, value in options.items():
        if option in _OF_THE_CALL:
            continue
        of_type = type(value)
        if of_type not in _PLAIN or (option in _TIMES and value is not None):
            return None
        kind += option, of_type, value
    return tuple(kind)


def _is_ordinary() -> bool:
    """Tell whether a call is made outside of a task, and Celery's signals have no receivers."""
    return not (
        signals.before_task_publish.receivers
        or signals.after_task_publish.receivers
        or signals.task_sent.receivers
        or _task_stack.stack
    )
