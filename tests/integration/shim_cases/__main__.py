"""What a client sees of its sockets: `python3 -m shim_cases CASE` runs one function and prints what it
returns, as JSON.

test_shim.py runs each case twice, over plain TCP and with the shim preloaded, and compares. So a case
reports everything that should be equal and nothing that cannot be (port numbers, times). libc is called
through ctypes where Python's socket module would decide for itself.
"""

import json
import os
import sys

from . import bytestream, connect, differing, ending, events, flags, interruption, metadata, sharing

MODULES = (bytestream, connect, differing, ending, events, flags, interruption, metadata, sharing)

[case] = {getattr(module, sys.argv[1]) for module in MODULES if hasattr(module, sys.argv[1])}
os.write(1, json.dumps(case(), default=lambda value: value.hex()).encode())
