"""Twisted, as its users write it: a TwistedCelery, task.react, and the default reactor.

python twisted_send_task.py
"""

from tasks import app
from twisted.internet import defer, task

from bridgetask.twisted_compat import TwistedCelery


@defer.inlineCallbacks
def main(reactor):
    # Turn the Celery app into a TwistedCelery app, which does its I/O without blocking.
    tx_app = TwistedCelery(app)

    # Call into Celery!
    result = yield tx_app.send_task("my_task", args=(1, 2))
    print(f"1 + 2 = {result}")

    # Nobody needs to wait for this: the reactor does, when it stops.
    tx_app.disconnect()


if __name__ == "__main__":
    task.react(main)
