"""Run basedpyright --verifytypes, and fail unless every public symbol has a known type.

What a symbol inherits from untyped libraries is theirs to type, and is left out.
"""

import json
import subprocess
import sys

finished = subprocess.run(
    [sys.executable, "-m", "basedpyright", "--verifytypes", "bridgetask", "--ignoreexternal", "--outputjson"],
    capture_output=True,
    text=True,
)
report = json.loads(finished.stdout)
completeness = report["typeCompleteness"]
for symbol in completeness["symbols"]:
    if symbol["isExported"] and not symbol["isTypeKnown"] and symbol["name"].startswith("bridgetask"):
        for diagnostic in symbol["diagnostics"]:
            print(f"{symbol['name']}: {diagnostic['message']}")
counts = completeness["exportedSymbolCounts"]
print(f"known {counts['withKnownType']}, ambiguous {counts['withAmbiguousType']}, unknown {counts['withUnknownType']}")
sys.exit(counts["withAmbiguousType"] + counts["withUnknownType"] > 0)
