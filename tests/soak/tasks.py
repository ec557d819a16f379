"""The tasks of the soak. Each execution is written down, so that none can go missing unnoticed."""

from __future__ import annotations

import os
import time
from typing import Any

from celery import Celery

__all__ = ["EXECUTIONS", "app"]

#: The file that executions are written to.
EXECUTIONS = os.environ.get("BRIDGETASK_SOAK_EXECUTIONS", os.devnull)

app = Celery(
    "soak",
    broker=os.environ.get("BRIDGETASK_TEST_BROKER", "amqp://guest:guest@127.0.0.1:1//"),
    backend=os.environ.get("BRIDGETASK_TEST_BACKEND", "rpc://"),
    set_as_current=False,
)
app.conf.update(
    task_default_queue=os.environ.get("BRIDGETASK_TEST_QUEUE", "celery"),
    # What is confirmed must survive everything: workers and servers that are killed included.
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    result_persistent=True,
    result_backend_always_retry=True,
    broker_transport_options={"confirm_publish": True},
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    worker_hijack_root_logger=False,
    worker_cancel_long_running_tasks_on_connection_loss=False,
)


def _write_down(task: Any) -> None:
    line = f"{task.request.id}\n".encode()
    descriptor = os.open(EXECUTIONS, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(descriptor, line)  # one write: lines of several processes do not mix
    finally:
        os.close(descriptor)


@app.task(bind=True)
def double(self: Any, number: int, seconds: float = 0.0) -> int:
    _write_down(self)
    time.sleep(seconds)
    return number * 2


@app.task(bind=True)
def fail(self: Any, number: int) -> None:
    _write_down(self)
    raise ValueError(number)


@app.task(bind=True)
def count(self: Any, number: int) -> int:
    _write_down(self)
    for step in range(3):
        self.update_state(state="PROGRESS", meta={"number": number, "step": step})
    return number * 2
