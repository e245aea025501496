"""The same server over streamable HTTP: `python streamable_http.py [LOG]`.

Prints its port and serves `http://127.0.0.1:PORT/mcp` until its standard input is closed.
"""

from __future__ import annotations

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from lab import Lab

lab = Lab(sys.argv[1] if len(sys.argv) > 1 else None)


class Handler(BaseHTTPRequestHandler):
    """One JSON reply to each POST; no stream of the server's own."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if urlsplit(self.path).path != "/mcp":
            self.reply(404)
            return
        reply = lab.answer(message)
        if reply is None:
            self.reply(202)
        else:
            self.reply(200, json.dumps(reply).encode())

    def do_GET(self) -> None:
        self.reply(405)

    def do_DELETE(self) -> None:
        self.reply(200)

    def reply(self, status: int, body: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Mcp-Session-Id", "lab-session")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Say nothing: the log of messages tells more."""


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
print(server.server_port, flush=True)
sys.stdin.read()
