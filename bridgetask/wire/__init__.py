"""Messages, built and read by Celery's and kombu's own code. Pure: no sockets, no event loop."""
