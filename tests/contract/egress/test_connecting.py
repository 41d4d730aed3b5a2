"""RELIABILITY 4.6, row 67, and F39 with a resolver of the test's own: what a name stands for is checked each time it is connected to.

`test_room` does the same with a real name server and addresses of the outside world, where a network namespace can be made.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from aiohttp.abc import ResolveResult
from yarl import URL

import delivery.egress
from delivery import policy
from delivery.attempt import Result, Sender
from delivery.egress import ADDRESSES_MAX, Guard, Resolver, is_own, small_socket
from runtime.settings import ApiSettings, Settings
from schemas.deliveries import Retry
from tests.contract.egress.certificates import Pair, authority, certificate
from tests.contract.egress.receivers import OK, Receiver, receiver, says, settings

DELIVERED = Result(200, None, b"ok")
DENIED = Result(None, "egress", b"")
DNS = Result(None, "dns", b"")
LOCAL = Result(None, "local", b"")
NAME = "hooks.example.com"


@pytest.fixture(scope="module")
def ca() -> Pair:
    return authority()


@pytest.fixture
def ca_file(ca: Pair, tmp_path: Path) -> Path:
    file = tmp_path / "ca.pem"
    file.write_bytes(ca.pem())
    return file


def answers(*of: Sequence[str]) -> Callable[[str], Sequence[str]]:
    """Each look-up gets the next answer; the last one stays."""
    left = list(of)
    return lambda _name: left.pop(0) if len(left) > 1 else left[0]


def production(made: Receiver, **delivery: object) -> Settings:
    """The rules of production, but for the port."""
    return settings(**{"allow_insecure_endpoints": False, "egress_ports": (made.port,), **delivery})


def url(made: Receiver, host: str = NAME) -> str:
    return f"https://{host}:{made.port}/"


@pytest.mark.parametrize(
    "found",
    [
        ["127.0.0.1"],
        ["8.8.8.8", "127.0.0.1"],
        ["127.0.0.1", "8.8.8.8"],
        ["8.8.8.8"] * 49 + ["127.0.0.1"],
        [f"8.8.8.{n}" for n in range(50)] + ["127.0.0.1"],
        ["::1"],
        ["2606:4700::1111", "::1"],
        ["8.8.8.8", "fe80::1%lo"],
        ["::ffff:127.0.0.1"],
        ["64:ff9b::7f00:1"],
        ["169.254.169.254"],
    ],
)
async def test_one_forbidden_address_among_all_refuses_the_attempt(found: Sequence[str]) -> None:
    async with receiver(says(OK)) as canary, Sender(production(canary), answers(found)) as sender:
        assert await sender.post(url(canary), b"{}", {}) == DENIED
        assert canary.connections == 0


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "127.1", "2130706433", "0x7f000001", "localhost", "0"])
async def test_an_address_that_was_registered_under_other_rules_is_refused_as_well(host: str) -> None:
    async with receiver(says(OK)) as canary, Sender(production(canary), answers(["127.0.0.1"])) as sender:
        assert await sender.post(url(canary, host), b"{}", {}) == DENIED
        assert await sender.post(url(canary, host).replace("https", "http"), b"{}", {}) == DENIED
        assert canary.connections == 0


def test_a_refused_attempt_is_retried_like_any_failure() -> None:
    assert policy.follow_up(DENIED.status, 1, 1_000, (30.0,)) == Retry(attempt=2, not_before_ms=31_000)


async def test_an_allowed_network_is_delivered_to_and_its_neighbour_is_not(ca: Pair, ca_file: Path, tmp_path: Path) -> None:
    async with receiver(says(OK), tls=certificate(NAME, ca).context(tmp_path), host="0.0.0.0") as made:
        opened = production(made, egress_allowed_networks=("127.0.0.2/32",), egress_ca_file=ca_file)
        async with Sender(opened, answers(["127.0.0.2"])) as sender:
            assert await sender.post(url(made), b"{}", {}) == DELIVERED
        async with Sender(opened, answers(["127.0.0.2", "127.0.0.3"])) as sender:
            assert await sender.post(url(made), b"{}", {}) == DENIED
        assert made.connections == 1
        itself = opened.model_copy(update={"api": ApiSettings(port=made.port)})
        async with Sender(itself, answers(["127.0.0.2"])) as sender:
            assert await sender.post(url(made), b"{}", {}) == DENIED
        assert made.connections == 1


async def test_a_name_that_is_bound_again_is_refused_and_a_kept_connection_asks_nobody(ca: Pair, ca_file: Path, tmp_path: Path) -> None:
    asked = 0

    def rebinding(_name: str) -> Sequence[str]:
        nonlocal asked
        asked += 1
        return ["127.0.0.2"] if asked == 1 else ["127.0.0.1"]

    async with receiver(says(OK), tls=certificate(NAME, ca).context(tmp_path), host="127.0.0.2") as made, receiver(says(OK)) as canary:
        opened = production(made, egress_allowed_networks=("127.0.0.2/32",), egress_ca_file=ca_file, egress_ports=(made.port, canary.port))
        async with Sender(opened, rebinding) as sender:
            for _ in range(3):
                assert await sender.post(url(made), b"{}", {}) == DELIVERED
            assert (asked, made.connections) == (1, 1)
            assert await sender.post(url(canary), b"{}", {}) == DENIED
            assert (asked, canary.connections) == (2, 0)


async def test_only_a_few_of_many_addresses_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def counting(addr_info: tuple[Any, ...]) -> socket.socket:
        opened.append(addr_info[4][0])
        return small_socket(addr_info)

    monkeypatch.setattr(delivery.egress, "small_socket", counting)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    many = [f"127.0.0.{n}" for n in range(1, 51)]
    async with Sender(settings(), answers(many)) as sender:
        assert await sender.post(f"http://{NAME}:{port}/", b"", {}) == Result(None, "connect", b"")
    assert opened == many[:ADDRESSES_MAX]


async def test_looking_up_has_a_budget_and_a_name_that_hangs_costs_others_nothing_and_one_thread() -> None:
    release = threading.Event()

    def hanging(name: str) -> Sequence[str]:
        if name.startswith("slow"):
            release.wait()
        return ["127.0.0.1"]

    async with receiver(says(OK)) as made, Sender(settings(dns_timeout_s=0.4), hanging) as sender:
        before = threading.active_count()
        began = time.monotonic()
        slow = [asyncio.create_task(sender.post(f"http://slow.example.com:{made.port}/", b"", {})) for _ in range(20)]
        assert await sender.post(f"http://{NAME}:{made.port}/", b"", {}) == DELIVERED
        # It may be our own resolver that does not answer: whether that costs an attempt is decided by whether others are reached.
        assert set(await asyncio.gather(*slow)) == {LOCAL}
        assert 0.35 <= time.monotonic() - began < 1.4
        assert await sender.post(f"http://slow.example.com:{made.port}/", b"", {}) == LOCAL
        assert threading.active_count() <= before + 1
        release.set()


@pytest.mark.parametrize(
    ("error", "result"),
    [
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), DNS),
        (socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"), LOCAL),
        (OSError("anything"), DNS),
        (UnicodeError("label too long"), DNS),
    ],
)
async def test_a_name_that_cannot_be_looked_up_is_a_dns_error_or_our_own(error: Exception, result: Result) -> None:
    def failing(_name: str) -> Sequence[str]:
        raise error

    async with Sender(settings(), failing) as sender:
        assert await sender.post("http://nowhere.example.com/", b"", {}) == result
    async with Sender(settings(), answers([])) as sender:
        assert await sender.post("http://nowhere.example.com/", b"", {}) == DNS


async def test_a_public_name_is_looked_up_as_it_is_without_the_hosts_search_list() -> None:
    asked: list[str] = []

    def lookup(name: str) -> Sequence[str]:
        asked.append(name)
        return ["127.0.0.1"]

    async with receiver(says(OK)) as made:
        for each in (production(made), production(made, egress_allowed_networks=("10.0.0.0/8",))):
            async with Sender(each, lookup) as sender:
                assert await sender.post(url(made), b"{}", {}) == DENIED
    assert asked == [f"{NAME}.", NAME], "where private networks are allowed, names of the local network are as well"


async def test_the_socket_is_the_second_line_and_the_peer_the_third(monkeypatch: pytest.MonkeyPatch) -> None:
    async def unchecked(_self: Resolver, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> list[ResolveResult]:
        return [ResolveResult(hostname=host, host="127.0.0.1", port=port, family=family, proto=0, flags=0)]

    monkeypatch.setattr(Resolver, "resolve", unchecked)
    async with receiver(says(OK)) as canary:
        async with Sender(production(canary)) as sender:
            assert await sender.post(url(canary), b"{}", {}) == DENIED
        assert canary.connections == 0
        monkeypatch.setattr(Guard, "open_socket", lambda _self, addr_info: small_socket(addr_info))
        monkeypatch.setattr("delivery.attempt.egress.read_url", lambda _url, _rules: URL(f"http://{NAME}:{canary.port}/"))
        async with Sender(production(canary)) as sender:
            assert await sender.post(url(canary), b"{}", {}) == DENIED
        assert canary.heads == [], "connected, and then nothing was sent"


async def test_what_a_name_stands_for_is_in_the_operators_log_and_not_in_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[dict[str, object]] = []
    monkeypatch.setattr("delivery.attempt.log.warning", lambda event, **fields: lines.append({"event": event, **fields}), raising=False)
    async with receiver(says(OK)) as canary, Sender(production(canary), answers(["10.1.2.3"])) as sender:
        assert await sender.post(url(canary) + "?token=s3cret", b"{}", {}) == DENIED
    assert [(line["event"], line["host"]) for line in lines] == [("egress.denied", NAME)]
    assert "10.1.2.3" in str(lines[0]["reason"])
    assert "s3cret" not in str(lines)


def test_an_address_of_this_host_is_known_as_such() -> None:
    assert all(is_own(ip_address(own)) for own in ("127.0.0.1", "127.9.9.9", "0.0.0.0"))
    assert not any(is_own(ip_address(foreign)) for foreign in ("8.8.8.8", "2606:4700::1111"))
