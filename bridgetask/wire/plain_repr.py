"""The text that headers show of a call's arguments, made faster if they are few and plain.

It is the text that ``celery.utils.saferepr`` makes; tests compare the two.
"""

from __future__ import annotations

from typing import Any

from celery.app.amqp import AMQP

__all__ = ["plain_repr", "plain_repr_serves"]

#: Texts of fewer characters than this are not shortened by ``saferepr``.
_SHORT = 200
_PLAIN_TYPES = frozenset({int, bool, float})


def plain_repr_serves(amqp: AMQP, conf: Any) -> bool:
    """Tell whether messages show arguments by ``saferepr``, and do not shorten short ones."""
    levels = getattr(conf, "task_repr_maxlevels", None)  # not in Celery 5.5
    return (
        getattr(amqp.create_task_message, "__func__", None) is AMQP.as_task_v2
        and min(amqp.argsrepr_maxsize, amqp.kwargsrepr_maxsize) >= _SHORT
        and (levels is None or levels > 0)
    )


def plain_repr(value: Any) -> str | None:
    """Return the text of a few numbers and short strings; None for anything else.

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
