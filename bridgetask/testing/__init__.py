"""Test programs that use bridgetask, without a broker and without a worker.

.. code-block:: python

    from bridgetask.testing import InMemoryClient

    async def test_checkout():
        async with InMemoryClient(app, results={"shop.charge": "ok"}) as client:
            assert await checkout(client) == "done"
            assert client.sent[0].name == "shop.charge"

Tasks that the app knows are run on the event loop, in its next turns; ``results`` stands in for
others. It answers to commands, too; events are what :meth:`InMemoryClient.send_event` sends, and
``task-sent`` where that is configured. For Twisted, give it to
``TwistedCelery(InMemoryClient(app))``.

Celery's own tracer runs the tasks, as in a worker. So retries, links, chains, chords,
``update_state`` and ``self.request`` are what they are there, with these differences:

- Nothing is waited for: a task with a ``countdown`` or an ``eta``, or one that retries, is run in a
  later turn of the loop. Time limits, rate limits and ``revoke`` do nothing.
- What a task calls by the same app, in the thread that it runs in, is run in later turns by the
  same worker, so that it can't wait for that: ``add.delay().get()`` raises ``RuntimeError``. What
  opens connections of its own does so in earnest, such as ``app.connection()`` or
  ``self.send_event()``, and so does a task with a ``backend`` of its own.
- What goes wrong outside a task, where a worker would log it and go on, is a failure of that task:
  a task that is not registered, a message that can't be read.

A worker reports nothing of a task that raises ``Ignore``, so that who waits for it waits until the
``timeout``. The same goes for ``Reject``, but later versions of Celery than 5.5 may report that as
a failure. Here a rejected task is never run again, not even with ``requeue=True``.
"""

from __future__ import annotations

from .client import InMemoryClient, SentTask

__all__ = ["InMemoryClient", "SentTask"]
