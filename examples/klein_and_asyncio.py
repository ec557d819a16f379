"""One process, one client: a Klein server and asyncio code share it, on any reactor.

python klein_and_asyncio.py 8080
"""

import asyncio
import json
import sys

from klein import Klein
from tasks import app
from twisted.internet import endpoints, task
from twisted.internet.defer import Deferred
from twisted.web.server import Site

from bridgetask.twisted_compat import TwistedCelery

tx_app = TwistedCelery(app)
web = Klein()


@web.route("/sum/<int:a>/<int:b>")
async def sum_of(request, a, b):
    """Twisted code: a Deferred for each call."""
    request.setHeader("Content-Type", "application/json")
    return json.dumps({"sum": await tx_app.send_task("my_task", args=(a, b))})


@web.route("/sums/<int:to>")
def sums(request, to):
    """asyncio code: the same client, in a coroutine that runs on its event loop."""

    async def gather():
        client = tx_app.client
        calls = [client.send_task("my_task", args=(n, n)) for n in range(to)]
        return await asyncio.gather(*calls)

    request.setHeader("Content-Type", "application/json")
    return tx_app.run(gather()).addCallback(lambda values: json.dumps({"sums": values}))


def main(reactor, port):
    endpoint = endpoints.TCP4ServerEndpoint(reactor, int(port), interface="127.0.0.1")
    listening = endpoint.listen(Site(web.resource()))
    listening.addCallback(lambda bound: print("listening on", bound.getHost().port, flush=True))
    return listening.addCallback(lambda _: Deferred())  # until the process is told to stop


if __name__ == "__main__":
    task.react(main, sys.argv[1:] or ["8080"])
