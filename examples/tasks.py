"""The Celery app of the examples. Run a worker for it with

    celery -A tasks worker

in this folder. BROKER_URL names the broker, if it is not a local RabbitMQ.
"""

import os
import time

from celery import Celery

app = Celery(
    "examples",
    broker=os.environ.get("BROKER_URL", "amqp://guest:guest@127.0.0.1:5672//"),
    backend="rpc",
    include=["twisted_tasks"],
)
app.conf.task_track_started = True


@app.task(name="my_task")
def my_task(a, b):
    # Normally you'd do a CPU bound task here.
    return a + b


@app.task
def resize(picture, width):
    time.sleep(0.05)
    return f"{picture} at {width}px"


@app.task
def broken():
    raise ValueError("this task always fails")


@app.task(bind=True)
def count(self, to):
    for number in range(to):
        self.update_state(state="COUNTING", meta={"at": number})
    return to


@app.task
def slow(seconds):
    time.sleep(seconds)
    return seconds
