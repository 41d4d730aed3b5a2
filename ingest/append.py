"""The append to the log: what a 201 stands for. Rebuilds the producer when librdkafka gives it up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from runtime.kafka import AppendError, Bus, Headers, OnReport, Report
from runtime.lifecycle import beside
from runtime.metrics import APPENDS
from runtime.telemetry import log
from schemas.ids import OrganizationId
from schemas.keys import record_key
from schemas.problems import NOT_APPENDED, UNKNOWN_OUTCOME, ProblemError
from schemas.topics import EVENTS_INGESTED

_RETRY_AFTER: Final = {"Retry-After": "2"}
#: A broker that refuses every new producer is not asked more often than this.
_REBUILD_PAUSE_S: Final = 0.5
_appends: Final = APPENDS.tally


class Appender:
    """Appends events to `events.ingested` with acks=all. One per process."""

    def __init__(self, make_bus: Callable[[Callable[[str], None]], Bus], *, in_flight_max: int) -> None:
        self._make_bus = make_bus
        self._in_flight_max = in_flight_max
        self._rebuilding: set[asyncio.Task[None]] = set()
        self._failed: Bus | None = None
        self._bus = self._new_bus()

    @property
    def bus(self) -> Bus:
        return self._bus

    @property
    def rebuilding(self) -> bool:
        """Whether the producer has failed for good and the next one is not there yet: everything is refused with `not_appended`."""
        return self._failed is self._bus

    async def start(self) -> None:
        await self._bus.start()

    async def append(self, organization: OrganizationId, value: bytes, headers: Headers) -> Report:
        """Raises the problems `not-appended` and `outcome-unknown`, each saying in `outcome` whether the event may be in the log."""
        return await self.confirmed(self.send(organization, value, headers))

    def send(self, organization: OrganizationId, value: bytes, headers: Headers) -> asyncio.Future[Report]:
        """Send without waiting: what is sent first is first in the log. Raises the problem `not-appended`; the rest is `confirmed`'s."""
        self._check_room()
        try:
            return self._bus.send(EVENTS_INGESTED, value, record_key(organization), headers=headers)
        except AppendError as error:
            raise _problem_of(error) from error

    async def confirmed(self, sent: asyncio.Future[Report]) -> Report:
        """Wait for what was sent. Raises as `append` does."""
        try:
            report = await sent
        except AppendError as error:
            raise _problem_of(error) from error
        _appends["appended"] += 1
        return report

    def post(self, organization: OrganizationId, value: bytes, headers: Headers, on_report: OnReport) -> None:
        """As `send`; what `on_report` gets has to go through `outcome`. It may not raise."""
        self._check_room()
        try:
            self._bus.post(EVENTS_INGESTED, value, record_key(organization), headers, on_report)
        except AppendError as error:
            raise _problem_of(error) from error

    @staticmethod
    def outcome(report: Report | AppendError) -> ProblemError | None:
        """Count what became of what was posted. The problem that `confirmed` raises, if it is one."""
        if isinstance(report, AppendError):
            return _problem_of(report)
        _appends["appended"] += 1
        return None

    def _check_room(self) -> None:
        if self._bus.outstanding >= self._in_flight_max:
            _appends["not_appended"] += 1
            raise not_appended("Too many events are waiting for the log.")

    async def stop(self) -> None:
        await self._bus.flush()
        await self._bus.stop()

    def _new_bus(self) -> Bus:
        """A producer that is replaced when it fails for good, also while the one before it is still being stopped."""

        def on_fatal(reason: str) -> None:
            log.error("producer.rebuilding", reason=reason)
            self._failed = bus
            task = beside(self._replace(bus), "replacing the producer")
            self._rebuilding.add(task)
            task.add_done_callback(self._rebuilding.discard)

        bus = self._make_bus(on_fatal)
        return bus

    async def _replace(self, failed: Bus) -> None:
        await asyncio.sleep(_REBUILD_PAUSE_S)
        if failed is self._bus:
            self._bus = self._new_bus()  # refuses with `not_appended` until it is started
            await self._bus.start()
        await failed.stop()


def _problem_of(error: AppendError) -> ProblemError:
    _appends[error.outcome] += 1
    log.warning("append.failed", outcome=error.outcome, error=error.detail)
    return not_appended("The log refused it.") if error.outcome == "not_appended" else unknown()


def not_appended(why: str) -> ProblemError:
    return ProblemError(NOT_APPENDED, f"{why} Send it again in a moment.", headers=_RETRY_AFTER, members={"outcome": "not_appended"})


def unknown() -> ProblemError:
    return ProblemError(
        UNKNOWN_OUTCOME,
        "The log did not confirm in time; the event may be there. Send it again with the same idempotency key.",
        headers=_RETRY_AFTER,
        members={"outcome": "unknown"},
    )
