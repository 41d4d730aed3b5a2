from __future__ import annotations

import pytest

from access import failures
from access.failures import FailedAttempts
from schemas.problems import ProblemError
from tests.unit.access.fakes import Clock


def blocked(attempts: FailedAttempts, address: str | None) -> str | None:
    """The Retry-After an address meets, None if it may try."""
    try:
        attempts.check(address)
    except ProblemError as error:
        assert (error.problem.slug, error.problem.status) == ("quota-exceeded", 429)
        return error.headers["Retry-After"]
    return None


def failed(attempts: FailedAttempts, address: str, times: int) -> None:
    for _ in range(times):
        attempts.count(address)


def test_an_address_may_fail_so_often_in_a_minute_and_then_waits_for_its_end() -> None:
    clock = Clock()
    attempts = FailedAttempts(clock, 3)
    failed(attempts, "192.0.2.1", 2)
    clock.now_s += 20
    assert blocked(attempts, "192.0.2.1") is None
    failed(attempts, "192.0.2.1", 1)
    assert blocked(attempts, "192.0.2.1") == "40"
    assert blocked(attempts, "192.0.2.2") is None
    clock.now_s += 40
    assert blocked(attempts, "192.0.2.1") is None
    failed(attempts, "192.0.2.1", 2)
    assert blocked(attempts, "192.0.2.1") is None


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("fe80::1%eth0", "fe80::2%eth1", True),
        ("::1", "::2", True),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("a socket", "a socket", True),
        ("a socket", "another", False),
    ],
)
def test_ipv6_counts_by_64_bits_and_ipv4_by_address(one: str, other: str, same: bool) -> None:
    attempts = FailedAttempts(Clock(), 1)
    attempts.count(one)
    assert (blocked(attempts, other) is not None) == same


def test_addresses_are_bounded_and_the_least_recently_counted_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failures, "ADDRESSES_MAX", 100)
    attempts = FailedAttempts(Clock(), 15)
    attempts.count("kept")
    for number in range(1_000):
        attempts.count(f"192.0.{number // 256}.{number % 256}")
        if number % 50 == 0:
            attempts.count("kept")
    assert len(attempts) == 100
    assert blocked(attempts, "kept") is not None


def test_nobody_is_counted_without_an_address_or_without_a_limit() -> None:
    attempts, unlimited = FailedAttempts(Clock(), 1), FailedAttempts(Clock(), 0)
    for _ in range(5):
        attempts.count(None)
        unlimited.count("192.0.2.1")
    assert blocked(attempts, None) is None
    assert blocked(unlimited, "192.0.2.1") is None
    assert len(attempts) == len(unlimited) == 0
