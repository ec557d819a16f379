"""What is recorded of a call. That it is what Celery publishes is held by ``differential``."""

from __future__ import annotations

import json
from typing import Any

import pytest
from celery import Celery, signals

from bridgetask.wire.recorder import _CALL_DECIDES, Recorder

from ..recorders import recorder_for


@pytest.fixture
def recorder() -> Recorder:
    celery = Celery("recorder", broker="amqp://", backend="rpc://", set_as_current=False)
    return recorder_for(celery, "reply")


def test_receivers_of_before_task_publish_may_edit_what_is_sent(recorder: Recorder) -> None:
    def edit(body: Any, headers: Any, properties: Any, **_: Any) -> None:
        headers["traced"] = "yes"
        properties["app_id"] = "edited"
        body[1]["added"] = 1

    signals.before_task_publish.connect(edit)
    try:
        (message,) = recorder.send_task("t", (), {"x": 1}, {}).messages
    finally:
        signals.before_task_publish.disconnect(edit)
    assert message.properties["headers"]["traced"] == "yes"
    assert message.properties["app_id"] == "edited"
    assert json.loads(message.body)[1] == {"x": 1, "added": 1}


def test_a_receiver_may_record_a_call_itself(recorder: Recorder) -> None:
    inner: list[Any] = []

    def call_again(sender: str, **_: Any) -> None:
        if sender == "outer":
            inner.append(recorder.send_task("inner", None, None, {}))

    signals.before_task_publish.connect(call_again)
    try:
        outer = recorder.send_task("outer", None, None, {})
    finally:
        signals.before_task_publish.disconnect(call_again)
    assert [each.properties["headers"]["task"] for each in outer.messages] == ["outer"]
    assert [each.properties["headers"]["task"] for each in inner[0].messages] == ["inner"]


def test_task_sent_is_kept_until_the_message_is_published(recorder: Recorder) -> None:
    sent: list[str] = []

    def receiver(sender: str, task_id: str, **_: Any) -> None:
        sent.append(task_id)

    signals.task_sent.connect(receiver)
    try:
        call = recorder.send_task("t", None, None, {})
        assert sent == []
        for callback in call.messages[0].on_published:
            callback()
    finally:
        signals.task_sent.disconnect(receiver)
    assert sent == [call.result.id]


def test_linked_tasks_are_told_to_answer_to_us_at_every_depth(recorder: Recorder) -> None:
    @recorder.app.task(shared=False)
    def plain() -> None: ...

    link = plain.s().set(link=[plain.s()])
    call = recorder.apply_async(plain, None, None, {"link": [link], "link_error": plain.s()})
    embed = json.loads(call.messages[0].body)[2]
    (callback,) = embed["callbacks"]
    assert callback["options"]["reply_to"] == "reply"
    assert callback["options"]["link"][0]["options"]["reply_to"] == "reply"
    assert embed["errbacks"][0]["options"]["reply_to"] == "reply"
    assert "reply_to" not in link.options


def test_a_custom_task_class_runs_its_own_apply_async(recorder: Recorder) -> None:
    class Tagged(recorder.app.Task):  # type: ignore[name-defined, misc]
        def apply_async(self, *args: Any, **kwargs: Any) -> Any:
            kwargs["headers"] = {"tagged": "yes"}
            return super().apply_async(*args, **kwargs)

    @recorder.app.task(shared=False, base=Tagged)
    def tagged() -> None: ...

    call = recorder.apply_async(tagged, None, None, {})
    assert call.messages[0].properties["headers"]["tagged"] == "yes"


def test_a_custom_app_class_runs_its_own_send_task() -> None:
    class Tagging(Celery):
        def send_task(self, *args: Any, **kwargs: Any) -> Any:
            kwargs["headers"] = {"tagged": "yes"}
            return super().send_task(*args, **kwargs)

    celery = Tagging("custom", broker="amqp://", backend="rpc://", set_as_current=False)
    call = recorder_for(celery, "reply").send_task("t", None, None, {})
    assert call.messages[0].properties["headers"]["tagged"] == "yes"


def test_changes_to_a_task_count_from_the_next_call(recorder: Recorder) -> None:
    @recorder.app.task(shared=False)
    def plain() -> None: ...

    (message,) = recorder.apply_async(plain, None, None, {}).messages
    assert message.properties["content_type"] == "application/json"
    plain.serializer = "yaml"
    plain._exec_options = None
    (message,) = recorder.apply_async(plain, None, None, {}).messages
    assert message.properties["content_type"] == "application/x-yaml"


def test_inside_a_task_the_call_becomes_its_child(recorder: Recorder) -> None:
    from celery._state import _task_stack

    @recorder.app.task(shared=False, bind=True)
    def parent(self: Any) -> None: ...

    parent.push_request(id="the-parent", root_id="the-root", children=[], called_directly=False)
    _task_stack.push(parent)
    try:
        import celery._state

        call = recorder.send_task("child", None, None, {})
        children = parent.request.children
        worker_task = celery._state.get_current_worker_task()
    finally:
        _task_stack.pop()
        parent.pop_request()
    assert worker_task is not None
    headers = call.messages[0].properties["headers"]
    assert (headers["root_id"], headers["parent_id"]) == ("the-root", "the-parent")
    assert [child.id for child in children] == [call.result.id]


def test_the_worker_decides_where_a_call_leaves_open_if_its_result_is_ignored(
    recorder: Recorder,
) -> None:
    @recorder.app.task(shared=False, ignore_result=True, name="silent")
    def silent() -> None: ...

    def ignored(name: str, **options: Any) -> bool:
        call = recorder.send_task(name, None, None, options)
        return recorder.ignores_result(call, call.result, call.messages[0])

    recorder.app.finalize()
    assert ignored("silent")
    assert ignored("silent", ignore_result=False) is not _CALL_DECIDES
    assert not ignored("unknown")
    assert ignored("unknown", ignore_result=True)
    recorder.app.conf.task_ignore_result = True
    assert ignored("unknown")
