"""Compressed bodies: bombs, one inside the other, cut off, or of nothing without end (RELIABILITY row 14)."""

from __future__ import annotations

import gzip
import time
import zlib
from collections.abc import Callable

import pytest

from ingest.bodies import zstd
from tests.flow.hostile.judged import Caller, assert_refused, little_memory
from tests.flow.raw import (
    EVENT_BODY,
    Header,
    RawConnection,
    assert_honest_works,
    assert_problem,
    event_bytes,
    nothing_appended,
    raw_event,
    request_bytes,
)
from triggers.provision import Tenant
from triggers.system import System

BATCH_MAX = 5_242_880
ZEROS = bytes(10_000_000)
SKIPPABLE = b"\x50\x2a\x4d\x18" + bytes(4)
COMPRESS: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "zstd": zstd.compress}


def compressed(key: str, coding: str, body: bytes, target: str = "/events") -> bytes:
    headers: list[Header] = [("X-API-Key", key), ("Content-Type", "application/json"), ("Content-Encoding", coding)]
    return request_bytes("POST", target, headers, body)


@pytest.mark.parametrize("coding", ["br", "deflate", "compress", "gzip, gzip", "gzip, zstd", "identity, gzip", "*", "gzip;q=1", ""])
def test_other_codings_and_one_inside_the_other_are_415_and_name_what_is_taken(coding: str, system: System, tenant: Tenant) -> None:
    body = gzip.compress(gzip.compress(EVENT_BODY)) if coding == "gzip, gzip" else EVENT_BODY
    for target in ("/events", "/events/batch"):
        assert_refused(system, tenant.key, compressed(tenant.key, coding, body, target), 415, "unsupported-media-type")
    with RawConnection(system.settings) as connection:
        connection.send(compressed(tenant.key, coding, body))
        assert connection.answer().header("Accept-Encoding") == "gzip, zstd, identity"


def test_two_headers_of_codings_are_two_codings(system: System, tenant: Tenant) -> None:
    two: list[Header] = [("Content-Encoding", "gzip"), ("Content-Encoding", "gzip")]
    assert_refused(system, tenant.key, event_bytes(tenant.key, headers=two, body=gzip.compress(EVENT_BODY)), 415, "unsupported-media-type")


@pytest.mark.parametrize("coding", COMPRESS)
@pytest.mark.parametrize("target", ["/events", "/events/batch"])
def test_a_bomb_is_413_as_soon_as_it_passes_the_limit(coding: str, target: str, system: System, tenant: Tenant) -> None:
    bomb = COMPRESS[coding](ZEROS)
    assert len(bomb) < 10_000
    with little_memory(system):
        assert_refused(system, tenant.key, compressed(tenant.key, coding, bomb, target), 413, "body-too-large")


def test_a_bomb_without_end_is_cut_off_at_what_it_inflates_to(system: System, tenant: Tenant) -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    with nothing_appended(system.settings), RawConnection(system.settings) as connection:
        connection.send(raw_event(tenant.key, b"Content-Encoding: gzip", b"Transfer-Encoding: chunked", body=b""))
        sent = 0
        while not connection.readable(0.005) and sent < 1_000_000:
            part = packer.compress(ZEROS[:1_000_000]) + packer.flush(zlib.Z_SYNC_FLUSH)
            sent += len(part)
            if not connection.send(b"%x\r\n%b\r\n" % (len(part), part)):
                break
        assert_problem(connection.answer(), 413, "body-too-large", closes=True)
    assert sent < 100_000
    assert_honest_works(system, tenant.key)


BROKEN: dict[str, tuple[str, bytes]] = {
    **{f"{coding} cut off": (coding, pack(EVENT_BODY)[:-3]) for coding, pack in COMPRESS.items()},
    **{f"{coding} of nothing": (coding, b"") for coding in COMPRESS},
    **{f"{coding} that is none": (coding, EVENT_BODY) for coding in COMPRESS},
    **{f"{coding} and more behind it": (coding, pack(EVENT_BODY) + b"x") for coding, pack in COMPRESS.items()},
    "gzip with another checksum": ("gzip", gzip.compress(EVENT_BODY)[:-8] + bytes(8)),
    "zlib named gzip": ("gzip", zlib.compress(EVENT_BODY)),
    "gzip named zstd": ("zstd", gzip.compress(EVENT_BODY)),
    "a zstd window of two gigabytes": ("zstd", b"\x28\xb5\x2f\xfd\x00\xa8" + b"\x01\x00\x00"),
    "a zstd dictionary we do not have": ("zstd", b"\x28\xb5\x2f\xfd\x03\x00\x2a\x00\x00\x00\x01\x00\x00"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_stream_that_is_not_whole_is_400(name: str, system: System, tenant: Tenant) -> None:
    coding, body = BROKEN[name]
    for target in ("/events", "/events/batch"):
        sent = compressed(tenant.key, coding, body, target)
        if not body:
            sent = sent.removesuffix(b"\r\n") + b"Content-Length: 0\r\n\r\n"
        assert_refused(system, tenant.key, sent, 400, "invalid-body")


@pytest.mark.parametrize(
    ("coding", "empty"),
    [
        pytest.param("gzip", gzip.compress(b""), id="gzip"),  # it holds the time, which would be another name in each process
        pytest.param("zstd", zstd.compress(b""), id="zstd"),
        pytest.param("zstd", SKIPPABLE, id="zstd-skippable"),
    ],
)
def test_streams_that_hold_nothing_without_end_hold_nobody_up(coding: str, empty: bytes, system: System, tenant: Tenant) -> None:
    sent = compressed(tenant.key, coding, empty * (BATCH_MAX // len(empty)), "/events/batch")
    began_s = time.monotonic()
    with little_memory(system):
        assert_refused(system, tenant.key, sent, 400, "invalid-body")
    assert time.monotonic() - began_s < 5


@pytest.mark.parametrize("coding", ["gzip", "x-gzip", "GZIP", "zstd", "identity"])
def test_what_is_compressed_once_and_whole_is_taken(coding: str, system: System, reader: Tenant) -> None:
    pack = {**COMPRESS, "identity": bytes}.get(coding, gzip.compress)
    with Caller(system, reader.key) as caller:
        kept = caller.accepted(caller.send(compressed(reader.key, coding, pack(b'{"type":"a.b","payload":{ "n" : 1 }}'))))
    assert kept.payload == b'{ "n" : 1 }'
