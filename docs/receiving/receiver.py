"""A webhook receiver: verify, keep, answer; the work comes afterwards. Needs: pip install standardwebhooks"""

import os
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from uuid import uuid4

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

webhook = Webhook(os.environ["WEBHOOK_SECRET"])
inbox = Path(os.environ.get("INBOX", "inbox"))
BODY_BYTES_MAX = 1_048_576


def keep(webhook_id: str, body: bytes) -> None:
    """Once for each id, whole or not at all. With a database: INSERT … ON CONFLICT DO NOTHING, then commit."""
    part = inbox / f".{uuid4()}"
    part.write_bytes(body)
    with suppress(FileExistsError):  # it came before, and our answer was lost
        os.link(part, inbox / webhook_id)
    part.unlink()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        if length > BODY_BYTES_MAX:
            self.close_connection = True
            return self.answer(413)
        body = self.rfile.read(length)  # the bytes as they came: JSON that is parsed and written again has others
        try:
            webhook.verify(body, dict(self.headers))
        except (WebhookVerificationError, ValueError):  # ValueError: a header or a body that is nonsense
            return self.answer(400)
        keep(self.headers["webhook-id"], body)
        return self.answer(204)

    def answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()


if __name__ == "__main__":
    inbox.mkdir(parents=True, exist_ok=True)
    server = ThreadingHTTPServer(("127.0.0.1", int(os.environ.get("PORT", "8000"))), Handler)
    print(f"listening on http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
