"""How often a client address got a credential wrong, so that guessing costs us nothing: no look-up anywhere past a limit.

It refuses to be exact: addresses are counted per process, in minutes that begin with their first failure, and the least recently counted
are forgotten when there are too many.
"""

from __future__ import annotations

import ipaddress
import math
from collections import OrderedDict
from threading import Lock
from typing import Final, NamedTuple

from runtime.clock import Clock
from runtime.metrics import KEYS_REFUSED
from schemas.problems import RATE_LIMITED, ProblemError

#: Addresses remembered, some 200 bytes each.
ADDRESSES_MAX: Final = 10_000
_MINUTE_S: Final = 60.0
#: What one caller has of IPv6: a /64 is the smallest network that is handed out (RFC 6177).
_IPV6_PREFIX: Final = 64
_ADDRESS_CHARS_MAX: Final = 64


class _Minute(NamedTuple):
    ends_s: float
    failures: int


class FailedAttempts:
    """Counts failures by address. Used from the event loop and from threads."""

    def __init__(self, clock: Clock, per_minute_max: int) -> None:
        self._clock = clock
        self._per_minute_max = per_minute_max
        self._minutes: OrderedDict[str, _Minute] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._minutes)

    def count(self, address: str | None) -> None:
        """One more failure. An unknown address is not counted."""
        if address is None or not self._per_minute_max:
            return
        caller, now_s = _caller(address), self._clock.monotonic_s()
        with self._lock:
            minute = self._minutes.get(caller)
            if minute is None or minute.ends_s <= now_s:
                minute = _Minute(now_s + _MINUTE_S, 0)
            self._minutes[caller] = minute._replace(failures=minute.failures + 1)
            self._minutes.move_to_end(caller)
            if len(self._minutes) > ADDRESSES_MAX:
                self._minutes.popitem(last=False)

    def check(self, address: str | None) -> None:
        """Raises the problem `quota-exceeded` for an address that used up its minute."""
        if address is None or not self._minutes:
            return
        caller = _caller(address)
        with self._lock:
            minute = self._minutes.get(caller)
        if minute is None or minute.failures < self._per_minute_max:
            return
        wait_s = minute.ends_s - self._clock.monotonic_s()
        if wait_s <= 0:
            return
        KEYS_REFUSED.labels("too_many").inc()
        raise ProblemError(
            RATE_LIMITED,
            "Too many credentials from this address were not valid. Check the key, then try again after the time in Retry-After.",
            headers={"Retry-After": str(math.ceil(wait_s))},
        )


def _caller(address: str) -> str:
    """The address that is counted: of IPv6 the /64, of IPv4 in IPv6 clothes the IPv4 one, of anything else the text."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address[:_ADDRESS_CHARS_MAX]
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(parsed), _IPV6_PREFIX), strict=False).network_address)
