"""Messages, built and read by Celery's and kombu's own code. Pure: no sockets, no event loop.

What Celery and kombu import or read at the first call is imported and read here: the first call
is made on the event loop, which must not wait for files.
"""

from __future__ import annotations

import celery.app.amqp
import celery.app.control
import celery.app.events
import celery.events.dispatcher
import celery.utils.quorum_queues
import celery.utils.time
import kombu.transport.pyamqp  # noqa: F401

_UTC = celery.utils.time.timezone.utc  # reads the time zone's file
