"""Test programs that use bridgetask, without a broker and without a worker.

.. code-block:: python

    from bridgetask.testing import InMemoryClient

    async def test_checkout():
        async with InMemoryClient(app, results={"shop.charge": "ok"}) as client:
            assert await checkout(client) == "done"
            assert client.sent[0].name == "shop.charge"

Tasks that the app knows are run by a thread of the client's, one after the other, in the order in
which they were sent; ``results`` stands in for others. So a task may block, and may run an event
loop of its own, as ``asyncio.run`` and asgiref's ``async_to_sync`` do, while the test goes on and
sees its progress. The client answers to commands, too; events are what
:meth:`InMemoryClient.send_event` sends, and ``task-sent`` where that is configured. For Twisted,
give it to ``TwistedCelery(InMemoryClient(app))``.

Celery's own tracer runs the tasks, as in a worker. So retries, links, chains, chords,
``update_state`` and ``self.request`` are what they are there, with these differences:

- Tasks share one thread, which is not the main thread of its process: ``signal.signal`` raises, and
  what belongs to a thread, such as Django's database connections, is another one's than the test's.
  With ``InMemoryClient(app, inline=True)`` they are run on the event loop instead, each in a turn
  of its own. The loop then stands still while one runs.
- States are seen as a task reports them. How it ends is seen when all is done that goes with that,
  such as ``after_return``, signals, and sending what is linked.
- Nothing is waited for: a task with a ``countdown`` or an ``eta``, or one that retries, is run when
  its turn comes. Time limits, rate limits and ``revoke`` do nothing.
- What a task calls by the same app is run later, by the same thread, so that the task can't wait
  for it: ``add.delay().get()`` raises ``RuntimeError``. What opens connections of its own does so
  in earnest, such as ``app.connection()`` or ``self.send_event()``. So do a task with a ``backend``
  of its own, and a thread that a task starts, unless the thread runs in a copy of the task's
  context: ``asyncio.to_thread`` and asgiref see to that, others need
  ``contextvars.copy_context().run``.
- Closing the client waits for what was sent to be run, for ``close_timeout`` at most. A task that
  runs even then is left alone: nothing can stop a thread. It does not hold up the end of the
  program.
- What goes wrong outside a task, where a worker would log it and go on, is a failure of that task:
  a task that is not registered, a message that can't be read.

A worker reports nothing of a task that raises ``Ignore``, so that who waits for it waits until the
``timeout``. The same goes for ``Reject``, but later versions of Celery than 5.5 may report that as
a failure. Here a rejected task is never run again, not even with ``requeue=True``.
"""

from __future__ import annotations

from .client import InMemoryClient, SentTask

__all__ = ["InMemoryClient", "SentTask"]
