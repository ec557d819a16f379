"""Shorter ways to what Celery's own code comes to, for what every call does.

Each gives what Celery would have given, or None where only Celery's own code will do. Tests hold
them against it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any

from celery.app.amqp import AMQP
from celery.app.utils import Settings
from celery.utils.collections import ConfigurationView as CelerysView

from .lesson import current_lesson

if TYPE_CHECKING:
    from celery import Celery

__all__ = ["ConfigurationView", "plain_repr", "plain_repr_serves"]

_MISSING: Any = object()
#: Whether the first layer counts that has a setting, under whichever name. Up to Celery 5.5 the
#: first name does, in whichever layer.
_PREFIXED: Any = [{"p_x": False}]
_BY_LAYERS: bool = CelerysView({"x": True}, _PREFIXED, prefix="p").x
#: Characters, up to which ``saferepr`` leaves nothing out.
_SHORT = 200
_PLAIN_TYPES = frozenset({int, bool, float})


class ConfigurationView(MutableMapping[str, Any]):
    """An app's configuration, always as it is now.

    Celery looks for a setting by its old and its new name in every layer, with a function call and
    an exception for each: 4 µs, some eight times a call.
    """

    def __init__(self, app: Celery) -> None:
        object.__setattr__(self, "_app", app)
        object.__setattr__(self, "_names", {})

    def __getattr__(self, name: str) -> Any:
        value = self._get(name)
        lesson = current_lesson.get()
        if lesson is not None:
            lesson.settings[name] = value
        return value

    def still_has(self, settings: Mapping[str, Any]) -> bool:
        """Tell whether settings have the values that they had."""
        for name, value in settings.items():  # noqa: SIM110 (a generator takes twice as long)
            if self._get(name) is not value:
                return False
        return True

    def _get(self, name: str) -> Any:
        conf: Any = self._app.conf
        names = self._names.get(name)
        if names is None or names[0] is not conf:
            names = self._names[name] = (conf, self._names_of(conf, name))
        if names[1]:
            for layer in conf.maps:
                for each in names[1]:
                    value = layer.get(each, _MISSING)
                    if value is not _MISSING:
                        return value
        return getattr(conf, name)

    @staticmethod
    def _names_of(conf: Any, name: str) -> tuple[str, ...]:
        """Return the names that a setting may have, or none where it has to be computed."""
        layers: Any = vars(conf).get("maps", ())
        if type(conf) is not Settings or hasattr(Settings, name) or name in vars(conf):
            return ()
        if not all(type(layer) is dict for layer in layers):
            return ()
        names = tuple(dict.fromkeys(conf._key(each) for each in conf._to_keys(name)))
        return names if len(names) == 1 or _BY_LAYERS else ()

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._app.conf, name, value)

    def __getitem__(self, name: str) -> Any:
        return self._app.conf[name]

    def __setitem__(self, name: str, value: Any) -> None:
        self._app.conf[name] = value

    def __delitem__(self, name: str) -> None:
        del self._app.conf[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._app.conf)

    def __len__(self) -> int:
        return len(self._app.conf)


def plain_repr_serves(amqp: AMQP, conf: Any) -> bool:
    """Tell whether messages show arguments by ``saferepr``, with room for what is short."""
    levels = getattr(conf, "task_repr_maxlevels", None)  # not in Celery 5.5
    return (
        getattr(amqp.create_task_message, "__func__", None) is AMQP.as_task_v2
        and min(amqp.argsrepr_maxsize, amqp.kwargsrepr_maxsize) >= _SHORT
        and (levels is None or levels > 0)
    )


def plain_repr(value: Any) -> str | None:
    """Return what ``celery.utils.saferepr`` makes of a few numbers and short strings.

    :param value: a task's ``args`` or ``kwargs``.
    """
    kind = type(value)
    shown: list[str] = []
    if kind is dict:
        for name, each in value.items():
            if type(name) is not str or (text := _plain(each)) is None:
                return None
            shown.append(f"{_quoted(name)}: {text}")
        whole = f"{{{', '.join(shown)}}}"
    elif kind is tuple or kind is list:
        for each in value:
            if (text := _plain(each)) is None:
                return None
            shown.append(text)
        whole = ", ".join(shown)
        if kind is tuple:
            whole = f"({whole},)" if len(shown) == 1 else f"({whole})"
        else:
            whole = f"[{whole}]"
    else:
        return None
    return whole if len(whole) < _SHORT else None


def _plain(value: Any) -> str | None:
    kind = type(value)
    if kind in _PLAIN_TYPES or value is None:
        return str(value)
    if kind is str and len(value) < _SHORT:
        return _quoted(value)
    return None


def _quoted(text: str) -> str:
    escaped = text.replace("'", "\\'")
    return f"'{escaped}'"
