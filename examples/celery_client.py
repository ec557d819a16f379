"""Twisted, with the decorator above the task: its calls give DeferredTasks.

python celery_client.py
"""

import tasks
from twisted.internet import defer, task
from twisted_tasks import thumbnail  # decorated where it is defined

from bridgetask.twisted_compat import CeleryClient

my_task = CeleryClient(tasks.my_task)  # or where it is used
slow = CeleryClient(tasks.slow)


@defer.inlineCallbacks
def main(reactor):
    print("delay:", (yield my_task.delay(1, 2)))
    print("apply_async:", (yield my_task.apply_async((3, 4), priority=5)))
    print("decorated:", (yield thumbnail.delay("cat.png", width=64)))
    print("subtask:", (yield my_task.subtask((5, 6)).delay()))
    print("s:", (yield my_task.s(7).delay(8)))
    print("chain:", (yield my_task.chain(my_task.s(1, 2), my_task.s(10)).apply_async()))
    print("pipe:", (yield (my_task.s(1, 2) | my_task.s(20)).delay()))

    # A DeferredTask is a Deferred like any other ...
    print("gatherResults:", (yield defer.gatherResults([my_task.delay(n, n) for n in range(5)])))
    results = yield defer.DeferredList([my_task.delay(1, 1), my_task.delay(2, 2)])
    print("DeferredList:", results)
    print("maybeDeferred:", (yield defer.maybeDeferred(my_task.delay, 9, 9)))

    # ... and answers for what an AsyncResult answers for.
    d = slow.apply_async((60,), countdown=60)
    print("AsyncResult:", len(d.task_id), d.state, d.ready())
    yield d.revoke()
    try:
        yield d
    except defer.CancelledError:
        print("revoked:", d.state)

    # A timeout ends the waiting, and leaves the task alone.
    try:
        yield slow.delay(0.5).addTimeout(0.1, reactor)
    except defer.TimeoutError:
        print("timed out")


if __name__ == "__main__":
    task.react(main)
