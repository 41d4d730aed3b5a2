"""Structured JSON logs and trace context.

One line is one JSON object. Events get one wide line per stage (`event_line`); everything else goes through `log`. Payloads, keys and
secrets are never passed in: callers name ids, positions and durations.
"""

from __future__ import annotations

import asyncio
import io
import logging
import os
import re
import sys
import threading
import time
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final, NamedTuple

import msgspec
import structlog

from runtime.settings import TelemetrySettings

log: Final[structlog.stdlib.BoundLogger] = structlog.get_logger()

_TRACEPARENT: Final = re.compile(r"\A00-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}\Z")
_TRACE_RANDOM_BYTES: Final = 24


class Trace(NamedTuple):
    """A position in a distributed trace (W3C Trace Context): 32 and 16 lower-case hex digits."""

    trace_id: str
    span_id: str

    @classmethod
    def parse(cls, traceparent: str | None, random: bytes) -> Trace:
        """A new span of the trace a caller sent; anything but a valid version-00 header starts a new trace (section 3.2.2).

        `random` holds at least 24 bytes.
        """
        if len(random) < _TRACE_RANDOM_BYTES:
            raise ValueError(f"random must hold {_TRACE_RANDOM_BYTES} bytes")
        found = _TRACEPARENT.match(traceparent) if traceparent else None
        if found and found[1].strip("0") and found[2].strip("0"):
            return cls(found[1], random[:8].hex())
        return cls(random[8:24].hex(), random[:8].hex())

    def child(self, random: bytes) -> Trace:
        return Trace(self.trace_id, random[:8].hex())

    @property
    def traceparent(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-01"


def _render(_logger: Any, _name: str, event: Any) -> bytes:
    return _encode(event)


class _Lines:
    """Lines to standard output, whole lines in one write, so that lines of threads never mix."""

    def __init__(self, stream: io.RawIOBase | Any) -> None:
        self._stream = stream
        self._waiting: list[bytes] = []
        self._lock = threading.RLock()  # a finalizer that logs may run inside

    def msg(self, line: bytes) -> None:
        """Write a line now, behind those that wait."""
        with self._lock:
            self._waiting.append(line)
        self.write()

    log = debug = info = warning = error = critical = exception = fatal = failure = err = msg

    def add(self, line: bytes) -> None:
        """Write a line at the end of the event loop's tick, with the others of the tick; now where no loop runs."""
        with self._lock:
            self._waiting.append(line)
            first = len(self._waiting) == 1
        if first:
            try:
                asyncio.get_running_loop().call_soon(self.write)
            except RuntimeError:
                self.write()

    def write(self) -> None:
        with self._lock:
            lines, self._waiting = self._waiting, []
            if lines:
                self._stream.write(b"\n".join(lines) + b"\n")
                self._stream.flush()


class _EventLines:
    """Event lines, rendered without structlog's chain of processors: there is one for every event and stage."""

    def __init__(self, lines: _Lines, process: str) -> None:
        self._lines = lines
        self._process = process
        self._pid = os.getpid()

    def line(self, stage: str, fields: dict[str, Any]) -> None:
        second, ns = divmod(time.time_ns(), 1_000_000_000)
        timestamp = f"{_to_the_second(second)}.{ns // 1000:06d}Z"
        fields |= {"process": self._process, "pid": self._pid, "event": stage, "level": "info", "timestamp": timestamp}
        self._lines.add(_encode(fields))


@lru_cache(4)
def _to_the_second(unix_s: int) -> str:
    return datetime.fromtimestamp(unix_s, UTC).isoformat()[: -len("+00:00")]


_encode: Final = msgspec.json.Encoder(enc_hook=str).encode
_event_lines: _EventLines | None = None


def configure(process: str, settings: TelemetrySettings) -> None:
    """Set up this process's logs on standard output. `process` is in every line. Raises `ValueError` for an unknown level."""
    global _event_lines  # noqa: PLW0603 - the process's log stream is one
    levels = logging.getLevelNamesMapping()
    level = levels.get(settings.log_level.upper())
    if level is None:
        raise ValueError(f"TRIGGERS_TELEMETRY__LOG_LEVEL must be one of {', '.join(sorted(levels)).lower()}, not {settings.log_level!r}")
    lines = _Lines(sys.stdout.buffer)
    ours = {"process": process, "pid": os.getpid()}

    def add_process(_logger: Any, _name: str, event: Any) -> Any:
        """By a processor and not by a context variable: threads of libraries, and tasks they start, begin with an empty context."""
        event.update(ours)
        return event

    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            add_process,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: lines,
        cache_logger_on_first_use=False,
    )
    _route_stdlib(level)
    _event_lines = _EventLines(lines, process) if settings.log_events and level <= logging.INFO else None


def _route_stdlib(level: int) -> None:
    """Libraries log through `logging`: their warnings become lines of ours."""

    class _Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            name = record.levelname.lower()
            exc = {"exc_info": record.exc_info} if record.exc_info else {}
            getattr(log, name, log.info)("library", logger=record.name, message=record.getMessage(), **exc)

    root = logging.getLogger()
    root.handlers[:] = [_Handler()]
    root.setLevel(max(level, logging.WARNING))


def event_line(stage: str, **fields: Any) -> None:
    """The one wide line of an event at a stage, e.g. `event.appended`. Not written before `configure` or when switched off."""
    if _event_lines is not None:
        _event_lines.line(stage, fields)


def event_lines_on() -> bool:
    """Whether `event_line` writes: lets a batch loop skip gathering fields."""
    return _event_lines is not None
