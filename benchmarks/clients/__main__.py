"""Run one client."""

import sys

from . import CLIENTS

name, url, backend = sys.argv[1:]
CLIENTS[name].serve(url, backend)
