"""HTTP/1.1 with limits: uvicorn's httptools protocol, bounded in bytes, in time and in what waits behind what.

uvicorn leaves the size of a head, the time a request may take to arrive and the number of pipelined requests without a limit, and answers
what it refuses as plain text. Here every refusal is a whole problem document, in its turn behind the answers before it, after which the
connection ends. The grammar itself is llhttp's in its strict mode: it refuses ambiguous lengths, bare CR and LF, folded headers.
This module refuses to know any route.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final, cast
from urllib.parse import unquote

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.server import ServerState

from ingest import heads
from ingest.connection import WHOLE_BODY, Closing, Connection, Cycle, Phase, Server, Unsent
from ingest.heads import Refused

#: Discarded after a last answer in the middle of a request; then the connection is reset.
_LINGER_BYTES_MAX: Final = 4 * 1024 * 1024
#: `: ` and CRLF, which every header line has beside its name and value.
_HEADER_LINE_BYTES: Final = 4
_FRAMING: Final = frozenset({b"content-length", b"transfer-encoding"})
_WATCHED: Final = frozenset({b"host", b"transfer-encoding", b"expect"})
#: Answered whatever is under way, so that a busy process is not taken for a dead one.
_ALWAYS_ANSWERED: Final = b"/health"
# Bound once: the members are looked up several times a request.
_IDLE, _HEAD, _BODY, _BUSY, _CLOSING = Phase


class BoundedProtocol(Connection):
    """One connection. `sweep` has to be called about twice a second: one look at all connections costs less than timers of each."""

    def __init__(
        self,
        server: Server,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._server = server
        self._settings = server.settings
        self._head_bytes_max = server.settings.head_bytes_max
        self._headers_max = server.settings.headers_max
        self._inner: asyncio.Transport
        #: The phase, and when it began in loop time; 0 until `data_received` ends.
        self._phase, self._since_s = _IDLE, 0.0
        #: Bytes since anything came out of the parser: what it may be holding.
        self._unparsed = 0
        self._head_size = 0
        self._hosts = 0
        self._host = b""
        #: What was good once is good again: most requests of a connection have the same host and target.
        self._good_host, self._good_target = b"", (b"", b"", "", b"")
        #: Whether the cycle that is to be answered still waits for its body, and nobody knows of it.
        self._waits = False
        #: The cycle that is being answered. `self.cycle` is the newest, `self.pipeline` what waits between them.
        self._active: Cycle | None = None
        #: A refusal that waits for the answers before it.
        self._last_words: bytes | None = None
        #: The header that says how long the body of a request is that asks to upgrade.
        self._framing: tuple[bytes, bytes] | None = None
        self._retelling = False
        self._discarded = 0
        self._unsent = Unsent()

    # The connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._inner = transport
        super().connection_made(cast(asyncio.Transport, Closing(transport, self)))
        self.headers, self.url = [], b""
        self._since_s = self.loop.time()
        if len(self.connections) > self._server.connections_max:
            transport.write(self._words(heads.overloaded("There are too many connections.", None)))
            self._phase = _CLOSING
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if (active := self._active) is not None and not active.response_complete:
            active.disconnected = True
            active.wake()
        self.pipeline.clear()
        self._waits = False
        self._phase = _CLOSING
        super().connection_lost(exc)

    def is_closing(self) -> bool:
        return self._phase is _CLOSING or self._inner.is_closing()

    def finish(self) -> None:
        """End the connection after what was written. In the middle of a request only our side: the caller has to find the answer before
        the reset that unread bytes would cause (RFC 9112 section 9.6)."""
        if self._phase is _CLOSING:
            return
        whole = self._phase in (_IDLE, _BUSY)
        self._phase = _CLOSING
        self._since_s = self.loop.time()
        if whole or self._inner.is_closing() or not self._inner.can_write_eof():
            self._inner.close()
        else:
            self.flow.resume_reading()
            self._inner.write_eof()

    def shutdown(self) -> None:
        """uvicorn's, when the server stops. What is half asked is not waited for."""
        if self._active is None or self._active.response_complete:
            self._phase = _CLOSING
            self._inner.close()
        else:
            self.cycle.keep_alive = False

    def sweep(self, now_s: float) -> None:
        """Hold the connection to its deadlines."""
        if self._unsent.stuck(self._inner.get_write_buffer_size(), now_s, self._settings.send_timeout_s):
            self._inner.abort()
            return
        since_s = now_s - self._since_s
        if self._phase is _IDLE:
            if since_s > self._settings.keep_alive_s:
                self.finish()
        elif self._phase is _HEAD:
            if since_s > self._settings.head_timeout_s and self._last_words is None:
                self._refuse(heads.too_slow("headers"))
        elif self._phase is _BODY:
            if self.flow.read_paused:
                self._since_s = now_s  # it is we who do not read
            elif since_s > self._settings.body_timeout_s and self._last_words is None:
                self._refuse(heads.too_slow("body"))
        elif self._phase is _CLOSING and since_s > self._settings.linger_s and not self._unsent:
            self._inner.abort()

    # What comes

    def data_received(self, data: bytes) -> None:
        if self._phase is _CLOSING or self._last_words is not None:
            self._discarded += len(data)
            if self._discarded > _LINGER_BYTES_MAX:
                self._inner.abort()
            return
        if self._phase is _IDLE:
            self._phase, self._since_s = _HEAD, 0.0
        self._unparsed += len(data)
        try:
            self._feed(data)
            if self._unparsed > self._head_bytes_max:
                raise heads.head_too_large(self._head_bytes_max)
        except Refused as refused:
            self._waits = False
            self._refuse(refused)
        else:
            if self._waits:
                self._waits = False
                self.start_task(cast(Cycle, self._active))
            if not self._since_s:
                self._since_s = self.loop.time()

    def _feed(self, data: bytes) -> None:
        while data:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                data = data[upgrade.args[0] :]
                self._go_on_without_upgrade()
            except httptools.HttpParserCallbackError as error:
                if isinstance(error.__context__, Refused):
                    raise error.__context__ from None
                raise
            except httptools.HttpParserError as error:
                raise heads.malformed(f"{error}. Requests are read as RFC 9112 writes them.") from None
            else:
                return

    def _go_on_without_upgrade(self) -> None:
        """We do not upgrade, so what follows the head is its body and HTTP/1.1 still (RFC 9110 section 7.8), but httptools has stopped
        reading it as such, before the body. A new parser is told a head of the same body. (Java's client asks for h2c by itself.)"""
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn sets it
        if (framing := self._framing) is not None:
            self._framing = None
            self._retelling = True
            self.parser.feed_data(b"POST / HTTP/1.1\r\n%b: %b\r\n\r\n" % framing)
            self._retelling = False

    def on_message_begin(self) -> None:
        if self._retelling:
            return
        self.url, self.headers, self.expect_100_continue = b"", [], False
        self._phase, self._since_s = _HEAD, 0.0
        self._head_size = self._hosts = 0

    def on_url(self, url: bytes) -> None:
        if self._retelling:
            return
        self.url += url
        self._head_size += len(url)
        if len(self.url) > self._settings.target_bytes_max:
            raise heads.target_too_long(self._settings.target_bytes_max)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._retelling:
            return
        self._head_size += len(name) + len(value) + _HEADER_LINE_BYTES
        if self._head_size > self._head_bytes_max:
            raise heads.head_too_large(self._head_bytes_max)
        if self._phase is not _HEAD:
            return  # a trailer, which may not be taken for a header (RFC 9110 section 6.5.1)
        name = name.lower()
        # Blanks around a value are none of it (RFC 9110 section 5.5); the parser leaves a tab at the end. What decides where a request ends
        # is looked at as it was sent: there the parser's reading must be ours.
        self.headers.append((name, value.strip(b" \t")))
        if len(self.headers) > self._headers_max:
            raise heads.too_many_headers(self._headers_max)
        if name in _WATCHED:
            self._watch(name, value)

    def _watch(self, name: bytes, value: bytes) -> None:
        if name == b"host":
            self._hosts += 1
            self._host = value
        elif name == b"expect":
            self.expect_100_continue = value.lower() == b"100-continue"
        elif value.lower() != b"chunked" or self.parser.get_http_version() == "1.0":
            raise heads.malformed("Only the transfer coding `chunked` is read, and only of HTTP/1.1.")

    def on_headers_complete(self) -> None:
        if self._retelling:
            return
        version, method = self.parser.get_http_version(), self.parser.get_method()
        if self._host != self._good_host or self._hosts != 1 or version != "1.1":
            heads.check_host(version, self._hosts, self._host)
            self._good_host = self._host
        target, path, text, query = self._good_target
        if self.url != target:
            path, query = heads.split_target(self.url, self._host if self._hosts else None)
            text = unquote(path.decode("ascii")) if b"%" in path else path.decode("ascii")
            if self.url.startswith(b"/"):  # another form is good for its host alone
                self._good_target = self.url, path, text, query
        self._unparsed = 0
        if version != "1.1":
            self.expect_100_continue = False  # RFC 9110 section 10.1.1
        scope = self.scope_of(version, method, text, path, query)
        if len(self.tasks) >= self._settings.requests_max and not path.startswith(_ALWAYS_ANSWERED):
            raise heads.overloaded("Too many requests are under way.", scope)
        if len(self.pipeline) >= self._settings.pipelined_max:
            raise heads.overloaded("Too many requests wait on this connection.", scope)
        self.cycle = cycle = Cycle(self, self._server, scope, wants_keep_alive=version == "1.1" and self.parser.should_keep_alive())
        if self.parser.should_upgrade():
            framings = [header for header in self.headers if header[0] in _FRAMING]
            self._framing = framings[0] if framings else None
        self._phase, self._since_s = _BODY, 0.0
        if self._active is None or self._active.response_complete:
            self._active, self._waits = cycle, True
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, self.app))

    def on_body(self, body: bytes) -> None:
        self._unparsed = 0
        cycle = cast(Cycle, self.cycle)
        if not cycle.response_complete and cycle.add(body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()

    def on_message_complete(self) -> None:
        if self._framing is not None:
            return
        self._unparsed = 0
        self._phase = _BUSY if self._phase is _BODY else self._phase
        cycle = cast(Cycle, self.cycle)
        if cycle.response_complete:
            return
        if not cycle.response_started:
            cycle.keep_alive = cycle.wants_keep_alive and not self._server.draining
        cycle.more_body = False
        if self._waits and cycle is self._active:
            self._waits = False
            self._start(cycle)
        else:
            cycle.wake()

    # What goes

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if self.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start(cast(Cycle, self.pipeline.pop()[0]))
        elif self._last_words is not None:
            self._end_with(self._last_words)
        elif self._phase is _BUSY:
            self._phase, self._since_s = _IDLE, self.loop.time()

    def _start(self, cycle: Cycle) -> None:
        self._active = cycle
        if cycle.more_body or not self._server.fast_path(cycle):
            self.start_task(cycle)

    def start_task(self, cycle: Cycle) -> None:
        cycle.scope[WHOLE_BODY] = cycle.whole_body
        self._start_asgi_task(cycle, self.app)

    def _refuse(self, refused: Refused) -> None:
        """Answer what cannot be served, in its turn, and end the connection."""
        words = self._words(refused)
        active = self._active
        if self._phase is _BODY:
            if self.cycle is not active:
                self.pipeline.popleft()
            elif active.response_started:
                self._inner.abort()  # half an answer cannot be mended
                return
            else:
                active.disconnected = True
                active.wake()
                self._end_with(words)
                return
        if active is None or active.response_complete:
            self._end_with(words)
        else:
            self._last_words = words

    def _words(self, refused: Refused) -> bytes:
        head = bool(self.url) and self.parser.get_method() == b"HEAD"
        return self._server.refusals.render(
            refused.error, refused.reason, self.headers, self.client, self.server_state.default_headers, head=head
        )

    def _end_with(self, words: bytes) -> None:
        self._inner.write(words)
        self._phase = _BODY  # whatever came, there is more of it than was read
        self.finish()
