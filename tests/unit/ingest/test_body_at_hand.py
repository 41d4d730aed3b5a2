"""A body that came whole with its head is taken without waiting; every other is waited for."""

from __future__ import annotations

from typing import Any

import pytest

from ingest.bodies import body_at_hand
from schemas.problems import BODY_TOO_LARGE, ProblemError
from tests.unit.ingest.wire import POST, House, statuses


@pytest.fixture
async def house() -> House:
    return House()


class Reader:
    """What a route sees of a request's body: at once, and then by asking for more."""

    def __init__(self, *, bytes_max: int = 100) -> None:
        self.bytes_max = bytes_max
        self.at_hand: list[bytes | None] = []
        self.received: list[dict[str, Any]] = []
        self.error: ProblemError | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            for _ in range(2):
                self.at_hand.append(body_at_hand(scope, "identity", bytes_max=self.bytes_max, what="Too much."))
        except ProblemError as error:
            self.error = error
        if self.at_hand[:1] == [None]:
            while not self.received or self.received[-1].get("more_body"):
                self.received.append(await receive())
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})


@pytest.mark.parametrize("framing", [b"Content-Length: 3\r\n\r\nabc", b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"])
async def test_what_came_whole_is_there_at_once_and_once_and_the_next_request_has_its_own(framing: bytes, house: House) -> None:
    protocol, transport = house.connect()
    for _ in range(2):
        protocol.app = reader = Reader()
        protocol.data_received(POST + framing)
        await house.settle()
        assert reader.at_hand[0] == b"abc"
        assert reader.at_hand[1] in (b"", None), "nobody gets it twice"
    assert statuses(transport.written) == [200, 200]


async def test_what_is_still_on_its_way_is_waited_for(house: House) -> None:
    protocol, _ = house.connect()
    protocol.app = reader = Reader()
    protocol.data_received(POST + b"Content-Length: 3\r\n\r\na")
    await house.settle()
    assert reader.at_hand == [None, None]
    protocol.data_received(b"bc")
    await house.settle()
    assert b"".join(message["body"] for message in reader.received) == b"abc"


async def test_what_is_too_long_is_refused_at_hand_too(house: House) -> None:
    protocol, _ = house.connect()
    protocol.app = reader = Reader(bytes_max=2)
    protocol.data_received(POST + b"Content-Length: 3\r\n\r\nabc")
    await house.settle()
    assert reader.error is not None
    assert reader.error.problem is BODY_TOO_LARGE


def test_a_compressed_body_and_one_of_another_server_are_never_at_hand() -> None:
    scope = {"triggers.whole_body": lambda: b"abc"}
    assert body_at_hand(scope, "gzip", bytes_max=10, what="") is None
    assert body_at_hand({}, "identity", bytes_max=10, what="") is None
