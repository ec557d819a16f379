"""The app and the tasks that the tests' workers run."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from celery import Celery, group
from celery.exceptions import Ignore

app = Celery(
    "tests.tasks",
    broker=os.environ.get("BRIDGETASK_TEST_BROKER", "amqp://guest:guest@127.0.0.1:1//"),
    backend=os.environ.get("BRIDGETASK_TEST_BACKEND", "rpc://"),
    set_as_current=False,
)
app.conf.update(
    task_default_queue=os.environ.get("BRIDGETASK_TEST_QUEUE", "celery"),
    control_exchange=os.environ.get("BRIDGETASK_TEST_CONTROL_EXCHANGE", "celery"),
    task_track_started=os.environ.get("BRIDGETASK_TEST_TRACK_STARTED") == "1",
    accept_content=["json", "pickle", "yaml", "msgpack"],
    worker_hijack_root_logger=False,
    # Without it, workers lose results while Redis can't be reached.
    result_backend_always_retry=os.environ.get("BRIDGETASK_TEST_ALWAYS_RETRY") == "1",
    # Without it, workers lose results that are on their way when a connection is closed.
    broker_transport_options={
        "confirm_publish": os.environ.get("BRIDGETASK_TEST_CONFIRM_PUBLISH") == "1"
    },
    broker_connection_retry_on_startup=True,
    task_publish_retry_policy={"max_retries": 2, "interval_start": 0, "interval_step": 0.1},
)


class ComplexError(Exception):
    """An exception that only its own arguments can rebuild."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


@app.task
def add(x: int, y: int) -> int:
    return x + y


@app.task
def echo(*args: Any, **kwargs: Any) -> list[Any]:
    return [list(args), kwargs]


@app.task
def sleep(seconds: float, value: Any = None) -> Any:
    time.sleep(seconds)
    return value


@app.task
def fail(kind: str = "ValueError", *args: Any) -> None:
    kinds: dict[str, type[BaseException]] = {
        "ValueError": ValueError,
        "ComplexError": ComplexError,
        "SystemExit": SystemExit,
        "KeyboardInterrupt": KeyboardInterrupt,
        "StopIteration": StopIteration,
        "TimeoutError": TimeoutError,
        "Made": type("Made", (Exception,), {"__module__": "nowhere"}),
    }
    raise kinds[kind](*args)


@app.task(bind=True)
def progress(self: Any, steps: int) -> int:
    for step in range(steps):
        self.update_state(state="PROGRESS", meta={"step": step})
    return steps


@app.task(bind=True, max_retries=2)
def retry_once(self: Any) -> int:
    if not self.request.retries:
        # Long enough for this process to report RETRY before another one reports STARTED.
        raise self.retry(countdown=0.5, exc=ValueError("again"))
    return int(self.request.retries)


@app.task(ignore_result=True)
def ignored(path: str | None = None) -> str:
    if path is not None:
        with open(path, "a") as stream:  # noqa: PTH123
            stream.write("ran\n")
    return "nobody will see this"


@app.task
def ignore() -> None:
    raise Ignore


@app.task(serializer="pickle")
def pickled(value: Any) -> Any:
    return value


@app.task(bind=True)
def about_me(self: Any) -> dict[str, Any]:
    """Return what the worker knows of the message that called it."""
    request = self.request
    return {
        "id": request.id,
        "headers": {k: v for k, v in (request.headers or {}).items() if isinstance(v, str)},
        "delivery_info": {
            key: request.delivery_info.get(key) for key in ("exchange", "routing_key", "priority")
        },
        "timelimit": request.timelimit,
        "reply_to": request.reply_to,
        "compression": request.get("compression"),
    }


@app.task(bind=True)
def call_from_task(self: Any) -> str:
    """Call a task from inside a task, so that it becomes a child."""
    child: str = add.delay(1, 1).id
    return child


@app.task
def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(name="proj.add")
def proj_add(x: int, y: int) -> int:
    """The task of the README."""
    return x + y


@app.task
def identity(value: Any) -> Any:
    return value


@app.task
def nap(seconds: float) -> float:
    """Sleep, and return for how long."""
    time.sleep(seconds)
    return seconds


@app.task(bind=True)
def stamps(self: Any) -> dict[str, Any]:
    found: dict[str, Any] = self.request.stamps
    return found


@app.task
def total(numbers: list[int]) -> int:
    return sum(numbers)


@app.task
def group_from_task(size: int) -> str:
    """Call a group from inside a task, so that it becomes a child."""
    called: str = group(add.s(number, 0) for number in range(size)).apply_async().id
    return called
