"""A small MCP server over stdio: `python stdio.py [LOG]`. Requests are answered at once, each in a thread."""

from __future__ import annotations

import json
import sys
import threading
from typing import Any

from lab import Lab

lab = Lab(sys.argv[1] if len(sys.argv) > 1 else None)
lock = threading.Lock()


def serve(message: dict[str, Any]) -> None:
    reply = lab.answer(message)
    if reply is not None:
        with lock:
            print(json.dumps(reply), flush=True)


for line in sys.stdin:
    threading.Thread(target=serve, args=(json.loads(line),), daemon=True).start()
