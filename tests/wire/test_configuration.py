"""The view of an app's configuration is that configuration, in less time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from celery import Celery
from celery.app.defaults import NAMESPACES, flatten

from bridgetask.wire.configuration import ConfigurationView, KnownSettings
from bridgetask.wire.observing import observing


def configured(**options: Any) -> Celery:
    celery = Celery("view", broker="amqp://127.0.0.1:1//", set_as_current=False)
    celery.config_from_object(options.pop("source", {}), **options)
    return celery


@pytest.fixture(
    params=[
        {},
        {"source": {"task_default_queue": "q", "task_ignore_result": True}},
        {"source": {"CELERY_DEFAULT_QUEUE": "q", "CELERY_IGNORE_RESULT": True}},
        {"source": {"X_TASK_DEFAULT_QUEUE": "q"}, "namespace": "X"},
        {"source": type("Config", (), {"task_default_queue": "q"})},
    ],
    ids=["defaults", "new names", "old names", "namespace", "object"],
)
def celery(request: pytest.FixtureRequest) -> Celery:
    return configured(**request.param)


def test_the_configuration_reads_the_same_and_follows_changes(celery: Celery) -> None:
    view = ConfigurationView(celery)
    names = [name for name, _ in flatten(NAMESPACES)]
    for _ in range(2):
        for name in names:
            assert getattr(view, name) == getattr(celery.conf, name)
        celery.conf.task_default_queue = "changed"
        celery.conf.update(task_send_sent_event=True)
        celery.add_defaults({"task_track_started": True})
    assert celery.conf.changes["task_default_queue"] == "changed"
    assert view.task_send_sent_event is True


def test_the_view_of_the_configuration_is_the_apps_in_all_else() -> None:
    celery = configured()
    view = ConfigurationView(celery)
    with pytest.raises(AttributeError):
        view.no_such_setting  # noqa: B018
    view.task_default_queue = "by attribute"
    assert celery.conf.task_default_queue == view["task_default_queue"] == "by attribute"
    view["task_default_queue"] = "by item"
    assert celery.conf.task_default_queue == "by item"
    del view["task_default_queue"]
    assert view.task_default_queue == celery.conf.task_default_queue == "celery"
    assert set(view) == set(celery.conf)
    assert len(view) == len(celery.conf)
    assert view.humanize() == celery.conf.humanize()


def known(celery: Celery, *names: str) -> KnownSettings:
    """Return these settings as they are now."""
    view = ConfigurationView(celery)
    with observing() as observations:
        for name in names:
            getattr(view, name)
    assert list(observations.settings) == list(names)
    return KnownSettings(celery, observations.settings)


CHANGES: dict[str, Callable[[Celery], object]] = {
    "attribute": lambda celery: setattr(celery.conf, "task_default_queue", "changed"),
    "update": lambda celery: celery.conf.update(task_default_queue="changed"),
    "layer": lambda celery: celery.conf.maps[-1].update(task_default_queue="changed"),
    "defaults": lambda celery: celery.add_defaults({"task_default_queue": "changed"}),
    "source": lambda celery: celery.config_from_object({"task_default_queue": "changed"}),
    "layers": lambda celery: celery.conf.maps.insert(0, {"task_default_queue": "changed"}),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_settings_are_known_until_one_of_them_changes(
    celery: Celery, change: Callable[[Celery], object]
) -> None:
    names = "task_default_queue", "task_ignore_result", "task_serializer"
    settings, others = known(celery, *names), known(celery, "task_send_sent_event")
    assert settings.are_current()
    celery.conf.task_track_started = True
    assert settings.are_current()
    celery.conf.task_ignore_result = not celery.conf.task_ignore_result
    assert not settings.are_current()
    settings = known(celery, *names)
    assert settings.are_current()
    before = celery.conf.task_default_queue
    change(celery)
    if celery.conf.task_default_queue != before:
        assert not settings.are_current()
        assert known(celery, *names).are_current()
    celery.conf.task_send_sent_event = True
    assert not others.are_current()


@pytest.mark.parametrize("setting", ["broker_url", "task_default_exchange", "task_routes"])
def test_settings_that_celery_computes_are_known_as_well(setting: str) -> None:
    celery = configured()
    settings = known(celery, setting)
    assert settings.are_current()
    setattr(celery.conf, setting, "changed")
    assert not settings.are_current()


def test_a_setting_that_is_gone_is_not_what_it_was() -> None:
    celery = configured(source={"task_default_queue": "q"})
    celery.conf.maps[-1].clear()
    settings = known(celery, "task_default_queue")
    assert settings.are_current()
    for layer in celery.conf.maps:
        layer.clear()
    assert not settings.are_current()
    assert not KnownSettings(celery, {"task_default_queue": "q"}).are_current()


def test_a_value_that_can_not_be_compared_is_not_what_it_was() -> None:
    class Odd:
        def __eq__(self, other: object) -> bool:
            raise ValueError

    celery = configured()
    settings = known(celery, "task_default_queue")
    celery.conf.task_default_queue = Odd()
    assert not settings.are_current()


def test_settings_are_observed_however_they_are_read() -> None:
    celery = configured()
    view = ConfigurationView(celery)
    with observing() as observations:
        assert view.task_default_queue == "celery"
        assert view["task_serializer"] == view.get("task_serializer") == "json"
        assert view.get("no_such_setting") is None
    assert observations.settings == {"task_default_queue": "celery", "task_serializer": "json"}
    assert view.task_ignore_result is False
    assert "task_ignore_result" not in observations.settings
