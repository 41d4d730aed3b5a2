"""One connection over a transport in memory: how long it may take, and when it ends."""

from __future__ import annotations

import asyncio

import pytest

from tests.unit.ingest.wire import GET, POST, House, now_s, statuses


@pytest.fixture
async def house() -> House:
    return House()


async def test_a_head_that_does_not_end_is_408_at_its_deadline_and_not_before(house: House) -> None:
    protocol, transport = house.connect()
    protocol.data_received(b"GET /x HTTP/1.1\r\nHo")
    protocol.sweep(now_s(9))
    assert transport.written == b""
    protocol.sweep(now_s(10.1))
    assert statuses(transport.written) == [408]
    assert (transport.ended, transport.closed) == (True, False)  # what still comes is thrown away for a while
    protocol.data_received(b"st: x\r\n\r\n")
    await house.settle()
    assert house.app.seen == []
    protocol.sweep(now_s(5.1))
    assert transport.aborted


async def test_more_of_a_head_does_not_move_its_deadline(house: House) -> None:
    protocol, transport = house.connect()
    protocol.data_received(b"GET /x HT")
    began_s = now_s()
    await asyncio.sleep(0.02)
    protocol.data_received(b"TP/1.1\r\nHost: x\r\n")
    protocol.sweep(began_s + 10.01)
    assert statuses(transport.written) == [408]


async def test_a_body_that_does_not_end_is_408_and_the_application_is_told_that_the_caller_is_gone(house: House) -> None:
    protocol, transport = house.connect()
    protocol.data_received(POST + b"Content-Length: 9\r\n\r\nabc")
    await house.settle()
    protocol.sweep(now_s(19))
    assert transport.written == b""
    protocol.sweep(now_s(20.1))
    await house.settle()
    assert statuses(transport.written) == [408]
    assert house.app.bodies == [None]


async def test_time_in_which_we_do_not_read_does_not_count(house: House) -> None:
    house.app.reads = False
    house.app.may_answer.clear()
    protocol, transport = house.connect()
    protocol.data_received(POST + b"Content-Length: 999999\r\n\r\n" + b"x" * 70_000)
    await house.settle()
    assert transport.paused
    protocol.sweep(now_s(25))
    protocol.sweep(now_s(40))
    protocol.flow.resume_reading()
    protocol.sweep(now_s(59))
    assert transport.written == b""
    protocol.sweep(now_s(61))
    assert statuses(transport.written) == [408]


async def test_an_idle_connection_is_closed_without_a_word(house: House) -> None:
    fresh, unused = house.connect()
    protocol, transport = house.connect()
    protocol.data_received(GET)
    await house.settle()
    answered = transport.written
    for each in (fresh, protocol):
        each.sweep(now_s(29))
    assert not unused.ended
    for each in (fresh, protocol):
        each.sweep(now_s(30.1))
    assert (unused.closed, unused.written) == (True, b"")
    assert (transport.closed, transport.written) == (True, answered)


async def test_a_request_under_way_has_all_the_time_its_application_takes(house: House) -> None:
    house.app.may_answer.clear()
    protocol, transport = house.connect()
    protocol.data_received(GET)
    await house.settle()
    protocol.sweep(now_s(1_000))
    assert not transport.ended
    house.app.may_answer.set()
    await house.settle()
    assert statuses(transport.written) == [200]


async def test_an_answer_nobody_takes_is_given_up_and_one_taken_slowly_is_not(house: House) -> None:
    protocol, transport = house.connect()
    protocol.data_received(GET)
    await house.settle()
    base_s = now_s()
    for later_s, unsent in ((1, 900), (35, 800), (70, 700)):
        transport.unsent = unsent
        protocol.sweep(base_s + later_s)
        assert not transport.aborted
    protocol.sweep(base_s + 111)
    assert transport.aborted
