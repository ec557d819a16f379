"""An app's configuration, which Celery's code reads from a view in less time than by itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from operator import is_, itemgetter
from typing import TYPE_CHECKING, Any

from celery.app.utils import Settings
from celery.utils.collections import ConfigurationView as CelerysView

from .observing import current_observations

if TYPE_CHECKING:
    from celery import Celery

__all__ = ["ConfigurationView", "KnownSettings"]

_MISSING: Any = object()
#: Whether Celery takes a setting from the first layer that has it by any of its names. Up to Celery
#: 5.5 it looks for the first name in all layers before it looks for the second one.
_PREFIXED: Any = [{"p_x": False}]
_BY_LAYERS: bool = CelerysView({"x": True}, _PREFIXED, prefix="p").x


class ConfigurationView(MutableMapping[str, Any]):
    """An app's configuration, always as it is now.

    Celery looks for a setting by its old and its new name in each layer, with a function call and
    an exception for each. That takes 4 µs, some eight times a call.
    """

    def __init__(self, app: Celery) -> None:
        object.__setattr__(self, "_app", app)
        object.__setattr__(self, "_names", {})

    def __getattr__(self, name: str) -> Any:
        return _observed(name, self._get(name))

    def _get(self, name: str) -> Any:
        conf: Any = self._app.conf
        names = self._names.get(name)
        if names is None or names[0] is not conf:
            names = self._names[name] = (conf, _names_of(conf, name))
        if names[1]:
            for layer in conf.maps:
                for each in names[1]:
                    value = layer.get(each, _MISSING)
                    if value is not _MISSING:
                        return value
        return getattr(conf, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._app.conf, name, value)

    def __getitem__(self, name: str) -> Any:
        return _observed(name, self._app.conf[name])

    def __setitem__(self, name: str, value: Any) -> None:
        self._app.conf[name] = value

    def __delitem__(self, name: str) -> None:
        del self._app.conf[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._app.conf)

    def __len__(self) -> int:
        return len(self._app.conf)


def _observed(name: str, value: Any) -> Any:
    """Return the value. If somebody observes what Celery's code reads, note it."""
    observations = current_observations()
    if observations is not None:
        observations.settings[name] = value
    return value


def _names_of(conf: Any, name: str) -> tuple[str, ...]:
    """Return the names that a setting may have; none if Celery computes it."""
    layers: Any = vars(conf).get("maps", ())
    if type(conf) is not Settings or hasattr(Settings, name) or name in vars(conf):
        return ()
    if not all(type(layer) is dict for layer in layers):
        return ()
    names = tuple(dict.fromkeys(conf._key(each) for each in conf._to_keys(name)))
    return names if len(names) == 1 or _BY_LAYERS else ()


class KnownSettings:
    """Settings with the values that they had, to be compared with those that they have.

    A setting is what it was if its layer of the configuration has the same value, and the layers
    before that one do not have it.

    :param settings: names -> values. Other threads may have changed them meanwhile.
    """

    def __init__(self, app: Celery, settings: Mapping[str, Any]) -> None:
        self._app = app
        conf: Any = app.conf
        self._conf = conf
        #: Settings that Celery computes.
        self._computed: list[tuple[str, Any]] = []
        missing: dict[str, tuple[str, ...]] = {}
        for name, value in settings.items():
            names = _names_of(conf, name)
            if names:
                missing[name] = names
            else:
                self._computed.append((name, value))
        self._layers: list[Any] = list(conf.maps) if missing else []
        self._expected = [_Expected(layer, missing, settings) for layer in self._layers]
        #: Whether some settings are in no layer any more.
        self._gone = bool(missing)

    def are_current(self) -> bool:
        """Tell whether all settings are what they were."""
        conf: Any = self._app.conf
        if conf is not self._conf or self._gone:
            return False
        layers = self._layers
        if layers and not (len(conf.maps) == len(layers) and all(map(is_, conf.maps, layers))):
            return False
        try:
            for each in self._expected:
                if not each.keys.isdisjoint(each.absent):
                    return False
                if each.get is not None and each.get(each.layer) != each.values:
                    return False
        except Exception:  # a value is gone, or can't be compared
            return False
        for name, value in self._computed:  # noqa: SIM110 (a generator takes longer)
            if getattr(conf, name) is not value:
                return False
        return True


class _Expected:
    """The names that a layer of the configuration must not have, and the values of others.

    :param settings: names -> values.
    :param missing: the settings that no layer before this one has, each with all of its names. The
        ones that this layer has are removed.
    """

    __slots__ = ("absent", "get", "keys", "layer", "values")

    def __init__(
        self, layer: Any, missing: dict[str, tuple[str, ...]], settings: Mapping[str, Any]
    ) -> None:
        absent: set[str] = set()
        found: dict[str, Any] = {}
        for name, names in list(missing.items()):
            for each in names:
                if each in layer:
                    found[each] = settings[name]
                    del missing[name]
                    break
                absent.add(each)
        self.layer = layer
        self.keys = layer.keys()
        #: The names that it must not have.
        self.absent = frozenset(absent)
        #: Returns the values of the others.
        self.get = itemgetter(*found) if found else None
        self.values = self.get(found) if self.get else None
