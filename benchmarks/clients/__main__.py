"""Run one client."""

import os
import sys

from . import CLIENTS

name, url, backend = sys.argv[1:]
if what := os.environ.get("BRIDGETASK_BENCHMARKS_UNDO"):
    from ..gains import undo

    undo(what)
    name = "bridgetask"
CLIENTS[name].serve(url, backend)
