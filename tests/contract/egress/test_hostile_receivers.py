"""RELIABILITY 4.7, rows 74 to 80: whatever a receiver does, the attempt ends at its deadline, has a class, and costs bounded bytes."""

from __future__ import annotations

import asyncio
import gzip
import resource
import socket
import time

import pytest

from delivery.attempt import Result, Sender
from tests.contract.egress.receivers import OK, SLACK_S, TIMEOUT_S, Behaviour, Taken, receiver, repeats, resets, says, settings

HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
#: A body of 64 KiB, a head of 64 KiB, and one read of the socket more.
TAKEN_BYTES_MAX = 3 * 65_536
RSS_GROWTH_MAX = 32 * 1024 * 1024

TIMEOUT = Result(None, "timeout", b"")
PROTOCOL = Result(None, "protocol", b"")
RESET = Result(None, "reset", b"")

SLOW = {
    "silence": repeats(b"", every_s=0.05),
    "a head in drips": repeats(b"X", after=HEAD + b"X-Drip: ", every_s=0.05),
    "a status line in drips": repeats(b"O", after=b"HTTP/1.1 200 ", every_s=0.05),
    "a body in drips": repeats(b"x", after=HEAD + b"Content-Length: 1000\r\n\r\n", every_s=0.05),
    "chunks in drips": repeats(b"1\r\nx\r\n", after=CHUNKED, every_s=0.05),
    "a body that does not come": repeats(b"", after=HEAD + b"Content-Length: 1000000000000\r\n\r\nx", every_s=0.05),
    "informational answers in drips": repeats(b"HTTP/1.1 100 Continue\r\n\r\n", every_s=0.05),
    "early hints in drips": repeats(b"HTTP/1.1 103 Early Hints\r\nLink: </>\r\n\r\n", every_s=0.05),
}

ENDLESS = {
    "headers without end": repeats(b"X-A: aaaaaaaaaaaaaaaaaaaaaaaaa\r\n", after=HEAD),
    "a header line without end": repeats(b"a", after=HEAD + b"X-A: "),
    "a status line without end": repeats(b"a", after=b"HTTP/1.1 200 "),
    "informational answers without end": repeats(b"HTTP/1.1 100 Continue\r\n\r\n"),
    "a chunk extension without end": repeats(b"a", after=CHUNKED + b"1;"),
    "chunks of one byte without end": repeats(b"1\r\nx\r\n", after=CHUNKED),
    "trailers without end": repeats(b"X-A: aaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n", after=CHUNKED + b"0\r\n"),
    "a chunk size without end": repeats(b"0", after=CHUNKED),
    "empty lines without end": repeats(b"\r\n"),
}

BROKEN = {
    "a status text of 64 KB": says(b"HTTP/1.1 200 " + b"x" * 65_536 + b"\r\nContent-Length: 0\r\n\r\n"),
    "HTTP/0.9": says(b"<html>hello</html>", close=True),
    "no status line": says(b"Content-Length: 0\r\n\r\n", close=True),
    "HTTP/2": says(b"\x00\x00\x00\x04\x00\x00\x00\x00\x00", close=True),
    "the preface of HTTP/2": says(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", close=True),
    "TLS": says(b"\x15\x03\x01\x00\x02\x02\x46", close=True),
    "a status that is no number": says(b"HTTP/1.1 OK 200\r\n\r\n", close=True),
    "a status of four digits": says(b"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n", close=True),
    "a negative length": says(HEAD + b"Content-Length: -1\r\n\r\n", close=True),
    "a length that is no number": says(HEAD + b"Content-Length: ten\r\n\r\n", close=True),
    "a length past 64 bits": says(HEAD + b"Content-Length: 99999999999999999999999\r\n\r\n", close=True),
    "two lengths": says(HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nxx", close=True),
    "a body that ends too early": says(HEAD + b"Content-Length: 1000000000000\r\n\r\nx", close=True),
    "a chunk size that is no number": says(CHUNKED + b"zz\r\nxx\r\n0\r\n\r\n", close=True),
    "a negative chunk size": says(CHUNKED + b"-1\r\nxx\r\n0\r\n\r\n", close=True),
    "chunks that end too early": says(CHUNKED + b"5\r\nxx", close=True),
    "a NUL in a header": says(HEAD + b"X-A: a\x00b\r\nContent-Length: 0\r\n\r\n", close=True),
    "a header without a name": says(HEAD + b": x\r\nContent-Length: 0\r\n\r\n", close=True),
    "101 headers": says(HEAD + b"".join(b"X-%d: a\r\n" % n for n in range(101)) + b"Content-Length: 0\r\n\r\n"),
}  # fmt: skip


async def attempt(behaviour: Behaviour) -> tuple[Result, float]:
    async with receiver(behaviour) as made, Sender(settings()) as sender:
        began = time.monotonic()
        result = await sender.post(made.url, b'{"id":"evt_1"}', {})
        return result, time.monotonic() - began


async def test_a_worker_that_may_not_write_any_more_sends_no_byte_of_a_request() -> None:
    looks = 0

    def replaced() -> None:
        nonlocal looks
        looks += 1
        raise RuntimeError("another has its partitions")

    async with receiver(says(OK)) as made:
        async with Sender(settings(), may_write=replaced) as sender:
            result = await sender.post(made.url, b'{"id":"evt_1"}', {})
        assert (looks, made.connections, result.status) == (1, 1, None)
        assert made.heads == []


@pytest.mark.parametrize("behaviour", SLOW.values(), ids=SLOW.keys())
async def test_a_slow_receiver_is_given_up_at_the_deadline(behaviour: Behaviour) -> None:
    result, took_s = await attempt(behaviour)
    assert result == TIMEOUT
    assert TIMEOUT_S - 0.05 <= took_s <= TIMEOUT_S + SLACK_S


@pytest.mark.parametrize("behaviour", ENDLESS.values(), ids=ENDLESS.keys())
async def test_a_head_or_framing_without_end_is_cut_long_before_the_deadline(behaviour: Behaviour, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = Taken(monkeypatch)
    result, took_s = await attempt(behaviour)
    assert result == PROTOCOL
    assert took_s < TIMEOUT_S
    assert taken.bytes <= TAKEN_BYTES_MAX


@pytest.mark.parametrize("behaviour", BROKEN.values(), ids=BROKEN.keys())
async def test_what_is_no_http_is_a_protocol_error(behaviour: Behaviour) -> None:
    assert (await attempt(behaviour))[0] == PROTOCOL


@pytest.mark.parametrize("after", [HEAD + b"\r\n", CHUNKED], ids=["until close", "in chunks"])
async def test_a_body_without_end_is_cut_and_its_status_counts(after: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = Taken(monkeypatch)
    part = b"x" * 1_000 if b"chunked" not in after else b"3e8\r\n" + b"x" * 1_000 + b"\r\n"
    result, took_s = await attempt(repeats(part, after=after))
    assert result == Result(200, None, b"x" * 4_096)
    assert took_s < TIMEOUT_S
    assert taken.bytes <= TAKEN_BYTES_MAX


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br"])
async def test_a_compressed_body_is_never_inflated_and_none_was_asked_for(encoding: str) -> None:
    bomb = gzip.compress(bytes(50_000_000))
    answer = HEAD + b"Content-Encoding: %s\r\nContent-Length: %d\r\n\r\n" % (encoding.encode(), len(bomb)) + bomb
    async with receiver(says(answer)) as made, Sender(settings()) as sender:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        result = await sender.post(made.url, b"{}", {})
        growth = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert result == Result(200, None, bomb[:4_096])
    assert growth < RSS_GROWTH_MAX
    assert b"\r\naccept-encoding: identity\r\n" in made.heads[0].lower()


@pytest.mark.parametrize("status", [200, 201, 202, 204, 205, 206, 226, 299])
async def test_every_2xx_is_a_success(status: int) -> None:
    result, _ = await attempt(says(b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % status))
    assert result == Result(status, None, b"")


@pytest.mark.parametrize("status", [101, 300, 304, 400, 401, 404, 410, 429, 500, 503, 599, 600, 999])
async def test_every_other_status_is_a_failure(status: int) -> None:
    result, _ = await attempt(says(b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % status))
    assert (result.status, result.error) == (status, "status")


async def test_status_199_is_no_final_answer() -> None:
    assert (await attempt(says(b"HTTP/1.1 199 X\r\n\r\n")))[0] == TIMEOUT


async def test_a_connection_that_is_reset_or_closed_without_an_answer_is_told_apart_from_one_that_was_refused() -> None:
    assert (await attempt(resets))[0] == RESET
    assert (await attempt(says(close=True)))[0] == RESET
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    async with Sender(settings()) as sender:
        assert await sender.post(f"http://127.0.0.1:{port}/", b"", {}) == Result(None, "connect", b"")


async def test_a_receiver_that_swallows_connections_is_given_up_at_the_deadline() -> None:
    """A full backlog drops SYN packets, as a firewall does."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        address = listening.getsockname()
        fill = [socket.socket() for _ in range(4)]
        for each in fill:
            each.setblocking(False)
            each.connect_ex(address)
        began = time.monotonic()
        async with Sender(settings()) as sender:
            result = await sender.post(f"http://127.0.0.1:{address[1]}/", b"", {})
        took_s = time.monotonic() - began
        for each in fill:
            each.close()
    assert result == TIMEOUT
    assert took_s <= TIMEOUT_S + SLACK_S


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("location", ["http://127.0.0.1:{port}/", "file:///etc/passwd", "/hook", "http://169.254.169.254/"])
async def test_a_redirect_is_never_followed(status: int, location: str) -> None:
    async with receiver(says(OK)) as canary:
        answer = f"HTTP/1.1 {status} X\r\nLocation: {location.format(port=canary.port)}\r\nContent-Length: 0\r\n\r\n"
        async with receiver(says(answer.encode())) as made, Sender(settings()) as sender:
            result = await sender.post(made.url, b"{}", {})
    assert (result.status, result.error) == (status, "status")
    assert (len(made.heads), canary.connections) == (1, 0)


async def test_what_an_answer_sets_is_forgotten() -> None:
    sets = (
        b"HTTP/1.1 200 OK\r\nSet-Cookie: a=1; Path=/\r\nStrict-Transport-Security: max-age=9999\r\n"
        b'Alt-Svc: h2=":1"\r\nRefresh: 0; url=/evil\r\nLocation: /evil\r\nContent-Length: 0\r\n\r\n'
    )
    async with receiver(says(sets)) as made, Sender(settings()) as sender:
        for _ in range(2):
            assert (await sender.post(made.url, b"{}", {})).status == 200
    assert made.connections == 1, "the connection is kept"
    assert len(made.heads) == 2
    assert all(head.startswith(b"POST /hook HTTP/1.1\r\n") and b"cookie" not in head.lower() for head in made.heads)


async def test_an_answer_too_many_is_never_taken_for_the_next_one() -> None:
    forged = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged"
    async with receiver(says(b"HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n" + forged)) as made, Sender(settings()) as sender:
        for _ in range(3):
            assert (await sender.post(made.url, b"{}", {})).status == 500
    assert made.connections == 3


async def test_the_first_bytes_of_a_body_are_kept_as_they_are() -> None:
    body = b"\x00\xff\xfe\x1b[31m<script>" + bytes(range(256)) * 40
    result, _ = await attempt(says(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body))
    assert result == Result(200, None, body[:4_096])


async def test_hostile_receivers_take_nothing_from_a_healthy_one() -> None:
    hostile = [*SLOW.values(), *ENDLESS.values()]
    async with Sender(settings()) as sender, asyncio.TaskGroup() as group, receiver(says(OK)) as healthy:
        stop = asyncio.Event()

        async def attack(behaviour: Behaviour) -> None:
            async with receiver(behaviour) as made:
                while not stop.is_set():
                    await sender.post(made.url, b"{}", {})

        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for behaviour in hostile:
            group.create_task(attack(behaviour))
        for _ in range(20):
            began = time.monotonic()
            assert await sender.post(healthy.url, b"{}", {}) == Result(200, None, b"ok")
            assert time.monotonic() - began < TIMEOUT_S
            await asyncio.sleep(0.05)
        stop.set()
        growth = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert growth < RSS_GROWTH_MAX
