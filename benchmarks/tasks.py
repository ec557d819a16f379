"""The app that a real worker runs: ``celery -A benchmarks.tasks worker``."""

from __future__ import annotations

import logging
import os
from typing import Any

from celery.signals import after_setup_logger

from .app import TASK, make_app
from .replier import RESULT

app = make_app(os.environ["BRIDGETASK_AMQP_URL"], os.environ["BRIDGETASK_BENCHMARKS_BACKEND"])


@app.task(name=TASK)
def add(*args: Any) -> int:
    return RESULT


@after_setup_logger.connect
def log_no_tasks(**kwargs: Any) -> None:
    for name in ("celery.app.trace", "celery.worker.strategy"):
        logging.getLogger(name).setLevel(logging.WARNING)
