"""A webhook receiver on loopback that checks signatures with the library receivers use: for demonstrations and tests."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Final, NamedTuple

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

_BODY_BYTES_MAX: Final = 2_000_000


class Received(NamedTuple):
    """One request. `verified` is None where the path has no secret; `at_s` is Unix seconds."""

    path: str
    headers: Mapping[str, str]
    body: bytes
    verified: bool | None
    at_s: float


#: Decides the status of a request, given how many came to its path before.
Answer = Callable[[Received, int], int]


class Receiver:
    """Keeps what it receives. `secrets[path]` verifies what comes to a path; `answers[path]` decides its status (204 by default)."""

    def __init__(self, port: int = 0, *, on_received: Callable[[Received], None] | None = None) -> None:
        self.secrets: dict[str, str] = {}
        self.answers: dict[str, Answer] = {}
        #: What a path answers, empty by default.
        self.bodies: dict[str, bytes] = {}
        self.received: list[Received] = []
        self._counts: Counter[str] = Counter()
        self._on_received = on_received
        self._lock = threading.Lock()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                receiver._handle(self)

            def log_message(self, format: str, *args: object) -> None:
                """Nothing: what was received is kept."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 256

            def handle_error(self, request: object, client_address: object) -> None:
                """Nothing: a sender that dies in the middle of a request is what this is for."""

        self._server = Server(("127.0.0.1", port), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="receiver", daemon=True)

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def url(self, path: str = "/webhooks") -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def __enter__(self) -> Receiver:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()

    def of(self, path: str = "/webhooks") -> list[Received]:
        """What came to a path, in order."""
        with self._lock:
            return [one for one in self.received if one.path == path]

    def _handle(self, request: BaseHTTPRequestHandler) -> None:
        length = min(int(request.headers.get("Content-Length") or 0), _BODY_BYTES_MAX)
        body = request.rfile.read(length)
        headers = {name.lower(): value for name, value in request.headers.items()}
        received = Received(request.path, headers, body, self._verify(request.path, headers, body), time.time())
        with self._lock:
            before = self._counts[request.path]
            self._counts[request.path] += 1
            self.received.append(received)
        decide = self.answers.get(request.path)
        status = 204 if decide is None else decide(received, before)
        if self._on_received is not None:
            self._on_received(received)
        request.send_response(status)
        content = self.bodies.get(request.path, b"")
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content)

    def _verify(self, path: str, headers: dict[str, str], body: bytes) -> bool | None:
        if path not in self.secrets:
            return None
        try:
            Webhook(self.secrets[path]).verify(body, headers)
        except WebhookVerificationError:
            return False
        return True
