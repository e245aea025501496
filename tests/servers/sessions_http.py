"""The same server over streamable HTTP, as stateful ones are: `python sessions_http.py [PORT]`.

It knows its own sessions and answers others with 404, and it answers calls by a stream of events that begins at
once. Prints its port and serves `http://127.0.0.1:PORT/mcp` until its standard input is closed.
"""

from __future__ import annotations

import json
import sys
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from lab import Lab

lab = Lab(None)
sessions: set[str] = set()


class Handler(BaseHTTPRequestHandler):
    """A JSON reply to each POST, or an event for a call."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        session = self.headers.get("Mcp-Session-Id", "")
        if message.get("method") == "initialize":
            session = uuid.uuid4().hex
            sessions.add(session)
        if session not in sessions:
            self.reply(404)
        elif message.get("method") == "tools/call":
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.flush()
            self.wfile.write(f"event: message\ndata: {json.dumps(lab.answer(message))}\n\n".encode())
        elif (answer := lab.answer(message)) is None:
            self.reply(202)
        else:
            self.reply(200, json.dumps(answer).encode(), session)

    def do_GET(self) -> None:
        self.reply(405)

    def do_DELETE(self) -> None:
        sessions.discard(self.headers.get("Mcp-Session-Id", ""))
        self.reply(200)

    def reply(self, status: int, body: bytes = b"", session: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if session:
            self.send_header("Mcp-Session-Id", session)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""


class Server(ThreadingHTTPServer):
    """Many may connect at once: with the queue of 5 that is usual, a busy machine resets some."""

    request_queue_size = 64


server = Server(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
print(server.server_port, flush=True)
sys.stdin.read()
