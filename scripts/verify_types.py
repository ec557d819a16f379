"""Run basedpyright --verifytypes, and fail unless the type of every public symbol is known.

What the types of other libraries leave open is not counted.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

finished = subprocess.run(
    [
        *(sys.executable, "-m", "basedpyright"),
        *("--verifytypes", "bridgetask", "--ignoreexternal", "--outputjson"),
    ],
    # It asks the first python on PATH where packages are, whatever --pythonpath says.
    env={**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
    capture_output=True,
    text=True,
)
completeness = json.loads(finished.stdout)["typeCompleteness"]
for symbol in completeness["symbols"]:
    if symbol["isExported"] and not symbol["isTypeKnown"]:
        for diagnostic in symbol["diagnostics"]:
            print(f"{symbol['name']}: {diagnostic['message']}")
known, ambiguous, unknown = (
    completeness["exportedSymbolCounts"][f"with{kind}Type"]
    for kind in ("Known", "Ambiguous", "Unknown")
)
print(f"{known} public symbols with a known type, {ambiguous} ambiguous, {unknown} unknown")
sys.exit(not known or ambiguous + unknown > 0)
