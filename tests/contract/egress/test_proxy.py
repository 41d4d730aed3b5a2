"""With an egress proxy the guard stays here: the proxy is asked for a checked address, and TLS still ends at the receiver's name."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from delivery.attempt import Result, Sender
from tests.contract.egress.certificates import authority, certificate
from tests.contract.egress.receivers import OK, Receiver, receiver, says, settings

NAME = "hooks.example.com"
DELIVERED = Result(200, None, b"ok")


@asynccontextmanager
async def proxy(to_port: int) -> AsyncIterator[Receiver]:
    """Takes CONNECT to any address and opens the tunnel to `to_port` of this host."""

    async def tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back_reader, back_writer = await asyncio.open_connection("127.0.0.1", to_port)
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")

        async def pump(source: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
            while part := await source.read(65_536):
                to.write(part)
                await to.drain()

        try:
            await asyncio.gather(pump(reader, back_writer), pump(back_reader, writer))
        finally:
            back_writer.transport.abort()

    async with receiver(tunnel) as made:
        yield made


def answers(found: Sequence[str]) -> Callable[[str], Sequence[str]]:
    return lambda _name: found


async def test_the_proxy_is_asked_for_the_checked_address_and_the_receiver_for_its_name(tmp_path: Path) -> None:
    ca = authority()
    (tmp_path / "ca.pem").write_bytes(ca.pem())
    names: list[str | None] = []
    context = certificate(NAME, ca).context(tmp_path)
    context.sni_callback = lambda _socket, name, _context: names.append(name)
    async with receiver(says(OK), tls=context) as made, proxy(made.port) as between:
        chosen = settings(
            allow_insecure_endpoints=False,
            egress_proxy=f"http://ada:s3cret@127.0.0.1:{between.port}",
            egress_ca_file=tmp_path / "ca.pem",
        )
        async with Sender(chosen, answers(["8.8.8.8", "8.8.4.4"])) as sender:
            for _ in range(2):
                assert await sender.post(f"https://{NAME}/hook", b"{}", {}) == DELIVERED
    head = between.heads[0].lower()
    assert head.startswith(b"connect 8.8.8.8:443 http/1.1\r\n")
    assert b"proxy-authorization: basic " + base64.b64encode(b"ada:s3cret").lower() in head
    assert between.connections == 1, "kept for the second"
    assert names == [NAME]
    assert len(made.heads) == 2
    assert all(f"\r\nhost: {NAME}\r\n".encode() in each.lower() and b"s3cret" not in each for each in made.heads)
    assert all(each.startswith(b"POST /hook HTTP/1.1\r\n") and b"proxy" not in each.lower() for each in made.heads)


async def test_a_tunnel_of_one_name_is_not_used_for_another_at_the_same_address(tmp_path: Path) -> None:
    ca = authority()
    (tmp_path / "ca.pem").write_bytes(ca.pem())
    async with receiver(says(OK), tls=certificate(NAME, ca).context(tmp_path)) as made, proxy(made.port) as between:
        chosen = settings(
            allow_insecure_endpoints=False, egress_proxy=f"http://127.0.0.1:{between.port}", egress_ca_file=tmp_path / "ca.pem"
        )
        async with Sender(chosen, answers(["8.8.8.8"])) as sender:
            assert await sender.post(f"https://{NAME}/", b"{}", {}) == DELIVERED
            assert await sender.post("https://other.example.com/", b"{}", {}) == Result(None, "tls", b"")
    assert len(made.heads) == 1


@pytest.mark.parametrize("host", [NAME, "169.254.169.254", "[::1]", "localhost"])
async def test_a_forbidden_address_is_never_asked_of_the_proxy(host: str) -> None:
    async with receiver(says(OK)) as between:
        chosen = settings(allow_insecure_endpoints=False, egress_proxy=f"http://127.0.0.1:{between.port}")
        async with Sender(chosen, answers(["8.8.8.8", "10.0.0.1"])) as sender:
            assert await sender.post(f"https://{host}/", b"{}", {}) == Result(None, "egress", b"")
    assert between.connections == 0


async def test_a_proxy_that_refuses_or_is_away_is_a_connect_error() -> None:
    async with receiver(says(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")) as between:
        chosen = settings(allow_insecure_endpoints=False, egress_proxy=f"http://127.0.0.1:{between.port}")
        async with Sender(chosen, answers(["8.8.8.8"])) as sender:
            assert await sender.post(f"https://{NAME}/", b"{}", {}) == Result(None, "connect", b"")
    async with Sender(chosen, answers(["8.8.8.8"])) as sender:
        assert await sender.post(f"https://{NAME}/", b"{}", {}) == Result(None, "connect", b"")


async def test_a_name_that_cannot_be_looked_up_is_a_dns_error_with_a_proxy_too() -> None:
    async with receiver(says(OK)) as between:
        chosen = settings(allow_insecure_endpoints=False, egress_proxy=f"http://127.0.0.1:{between.port}")
        async with Sender(chosen, answers([])) as sender:
            assert await sender.post(f"https://{NAME}/", b"{}", {}) == Result(None, "dns", b"")
    assert between.connections == 0
