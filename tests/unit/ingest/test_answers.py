"""How answers are written: the head with the body, nothing that could be read as two answers, streams as uvicorn writes them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.unit.ingest.wire import GET, POST, House, statuses


@pytest.fixture
async def house() -> House:
    return House()


async def test_an_answer_of_known_length_is_one_write_and_the_connection_goes_on(house: House) -> None:
    protocol, transport = house.connect()
    for number in (1, 2):
        protocol.data_received(GET)
        await house.settle()
        assert transport.writes == number
    head, body = transport.written.split(b"\r\n\r\n")[:2]
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"content-length: 2\r\n" in head + b"\r\n"
    assert body.startswith(b"/x")
    assert statuses(transport.written) == [200, 200]
    assert not transport.closed


async def test_head_gets_the_same_head_and_no_body(house: House) -> None:
    protocol, transport = house.connect()
    protocol.data_received(GET.replace(b"GET", b"HEAD"))
    await house.settle()
    assert b"content-length: 2\r\n" in transport.written
    assert transport.written.endswith(b"\r\n\r\n")


@pytest.mark.parametrize("value", [b"a\r\nSet-Cookie: b", b"a\nb", b"a\rb", b"a\x00b", b"a\x7fb", b"\x1b"])
async def test_a_header_that_would_be_read_as_something_else_is_never_written(value: bytes, house: House) -> None:
    house.app.headers = [(b"x", value)]
    protocol, transport = house.connect()
    protocol.data_received(GET)
    await house.settle()
    assert value not in transport.written
    assert b"200 OK" not in transport.written


async def test_an_answer_that_asks_to_be_the_last_is(house: House) -> None:
    house.app.headers = [(b"connection", b"close")]
    protocol, transport = house.connect()
    protocol.data_received(POST + b"Content-Length: 0\r\n\r\n")
    await house.settle()
    assert transport.written.count(b"connection: close") == 1
    assert transport.closed


@pytest.mark.parametrize("bodies", [[b"abc"], [b"ab", b"c"], [b"", b"abc", b""]])
async def test_a_body_in_parts_arrives_whole_whether_its_length_is_told_or_not(bodies: list[bytes], house: House) -> None:
    for headers, whole in (([(b"content-length", b"3")], b"\r\n\r\nabc"), ([], b"0\r\n\r\n")):
        protocol, transport = house.connect()

        async def parts(_scope: Any, _receive: Any, send: Any, headers: list[tuple[bytes, bytes]] = headers) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            for number, body in enumerate(bodies, 1):
                await send({"type": "http.response.body", "body": body, "more_body": number < len(bodies)})

        protocol.app = parts
        protocol.data_received(GET)
        await house.settle()
        assert transport.written.endswith(whole)
        assert statuses(transport.written) == [200]
        assert not transport.closed
        protocol.connection_lost(None)


async def test_a_stream_begins_before_its_first_part(house: House) -> None:
    protocol, transport = house.connect()

    async def waits(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        await asyncio.sleep(60)

    protocol.app = waits
    protocol.data_received(GET)
    await house.settle()
    assert statuses(transport.written) == [200]
    for task in house.state.tasks:
        task.cancel()


async def test_a_body_of_another_length_than_was_told_is_not_passed_off_as_whole(house: House) -> None:
    protocol, transport = house.connect()

    async def short(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"9")]})
        await send({"type": "http.response.body", "body": b"abc"})

    protocol.app = short
    protocol.data_received(GET)
    await house.settle()
    assert transport.closed
