"""A worker that signs its results, and takes signed tasks only."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery


def make_app() -> Celery:
    """Return the app as ``BRIDGETASK_TEST_*`` in the environment describe it."""
    environ = os.environ
    celery = Celery("signed", backend="rpc://", set_as_current=False)
    celery.conf.update(
        broker_url=environ["BRIDGETASK_TEST_BROKER"],
        task_default_queue="signed",
        task_serializer="auth",
        result_serializer="auth",
        event_serializer="auth",
        accept_content=["auth"],
        worker_hijack_root_logger=False,
        broker_connection_retry_on_startup=True,
        security_key=environ["BRIDGETASK_TEST_KEY"],
        security_certificate=environ["BRIDGETASK_TEST_CERTIFICATE"],
        security_cert_store=environ["BRIDGETASK_TEST_CERTIFICATES"],
    )
    celery.setup_security()
    return celery


if "BRIDGETASK_TEST_KEY" in os.environ:
    app = make_app()

    @app.task(name="signed.add")
    def add(x: int, y: int) -> int:
        return x + y

    @app.task(name="signed.fail")
    def fail(*args: Any) -> None:
        raise ValueError(*args)
