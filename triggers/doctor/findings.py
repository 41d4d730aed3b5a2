"""What a check has to say, and how checks are run: side by side, each with its limit of time, so that none hides what another finds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, Literal, NamedTuple

from confluent_kafka import KafkaException

from runtime.settings import Settings

Severity = Literal["ok", "warn", "fail"]
SEVERITIES: Final[tuple[Severity, ...]] = ("ok", "warn", "fail")


class Finding(NamedTuple):
    """`what` is so; `do` says what to do about it, empty where nothing has to be done."""

    check: str
    severity: Severity
    what: str
    do: str = ""


Said = tuple[Severity, str, str]
#: Looks at one thing and yields (severity, what, what to do) as it goes on. May raise: that is a finding, too.
Check = Callable[[Settings], Iterator[Said]]


def ok(what: str) -> Said:
    return "ok", what, ""


def warn(what: str, do: str) -> Said:
    return "warn", what, do


def bad(what: str, do: str) -> Said:
    return "fail", what, do


def worst(findings: Iterable[Finding]) -> Severity:
    return max((one.severity for one in findings), key=SEVERITIES.index, default="ok")


def run(settings: Settings, checks: Mapping[str, Check], timeout_s: float) -> list[Finding]:
    """All findings in the order of the checks. Takes no longer than `timeout_s`, whatever hangs.

    Threads, not a pool: an interpreter that ends does not wait for a daemon that a server keeps hanging.
    """
    runs = {name: _Run(name, check, settings) for name, check in checks.items()}
    for one in runs.values():
        one.start()
    deadline_s = time.monotonic() + timeout_s
    for one in runs.values():
        one.join(max(0.0, deadline_s - time.monotonic()))
    return [finding for one in runs.values() for finding in one.taken(timeout_s)]


class _Run(threading.Thread):
    def __init__(self, name: str, check: Check, settings: Settings) -> None:
        super().__init__(name=f"check-{name}", daemon=True)
        self._check = check
        self._settings = settings
        self._found: list[Finding] = []

    def run(self) -> None:
        try:
            for said in self._check(self._settings):
                self._found.append(Finding(self.name.removeprefix("check-"), *said))
        except Exception as error:  # noqa: BLE001 - a check that cannot look has found something
            self._found.append(
                Finding(self.name.removeprefix("check-"), "fail", f"could not be looked at: {_reason(error)}", "see whether it runs")
            )

    def taken(self, timeout_s: float) -> list[Finding]:
        found = list(self._found)
        if self.is_alive():
            late = f"no answer within {timeout_s:g} s"
            found.append(
                Finding(self.name.removeprefix("check-"), "fail", late, "see whether it runs, and whether the network lets us through")
            )
        return found


def _reason(error: Exception) -> str:
    """One line, and never a connection string: those may hold passwords."""
    text = error.args[0].str() if isinstance(error, KafkaException) else str(error)
    return (text.strip().splitlines() or [type(error).__name__])[0]
