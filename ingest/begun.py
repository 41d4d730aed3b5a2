"""What the fast path has done of a request when it hands it over to the general way, which goes on from there."""

from __future__ import annotations

from typing import Final

from access.auth import Principal
from access.http import Context
from access.limits import Allowance
from ingest.arrivals import Arrival
from runtime.kafka import Report

#: Of a request's scope: its `Begun`.
BEGUN: Final = "triggers.begun"


class Begun:
    """A request that was asked about in Redis. `key` and `principal` as they were then, at the epoch count `arrival.checked`.

    `began_s` is monotonic, `deadline_s` event-loop time. `error` is what ended it. `report`: it is in the log, and only the answer is left.
    """

    __slots__ = ("allowance", "arrival", "began_s", "context", "deadline_s", "error", "key", "principal", "report")

    def __init__(self, key: bytes, principal: Principal, arrival: Arrival, context: Context, began_s: float, deadline_s: float) -> None:
        self.key = key
        self.principal = principal
        self.arrival = arrival
        self.context = context
        self.began_s = began_s
        self.deadline_s = deadline_s
        self.allowance: Allowance | None = None
        self.error: Exception | None = None
        self.report: Report | None = None
