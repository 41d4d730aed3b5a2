from __future__ import annotations

import gzip
import tracemalloc
import zlib
from collections.abc import MutableMapping
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.bodies import ClientGone, read_body, zstd
from ingest.formats import Coding
from schemas.problems import ProblemError

COMPRESS: dict[Coding, Any] = {"identity": bytes, "gzip": gzip.compress, "zstd": zstd.compress}
LIMIT = 300_000


async def read(sent: bytes, coding: Coding, cuts: list[int] | None = None, headers: Any = (), bytes_max: int = LIMIT) -> bytes:
    edges = sorted({0, len(sent), *(cut % (len(sent) + 1) for cut in cuts or [])})
    parts = [sent[a:b] for a, b in pairwise(edges)] or [b""]

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

    return await read_body(headers, receive, coding, bytes_max=bytes_max, what="too long")


async def refused(sent: bytes, coding: Coding, **named: Any) -> str:
    with pytest.raises(ProblemError) as caught:
        await read(sent, coding, **named)
    return caught.value.problem.slug


@given(
    st.binary(max_size=2_000),
    st.integers(1, 100),
    st.sampled_from(["identity", "gzip", "zstd"]),
    st.lists(st.integers(0, 10**6), max_size=6),
)
async def test_a_body_is_the_same_however_it_is_compressed_and_cut(data: bytes, times: int, coding: Coding, cuts: list[int]) -> None:
    assert await read(COMPRESS[coding](data * times), coding, cuts) == data * times


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
async def test_members_one_behind_the_other_are_one_body(coding: Coding) -> None:
    compress = COMPRESS[coding]
    assert await read(compress(b"a" * 65_536) + compress(b"") + compress(b"b" * 65_537), coding) == b"a" * 65_536 + b"b" * 65_537


@pytest.mark.parametrize("coding", ["identity", "gzip", "zstd"])
@pytest.mark.parametrize(("size", "fits"), [(LIMIT, True), (LIMIT + 1, False)])
async def test_the_limit_holds_for_what_is_inflated(coding: Coding, size: int, fits: bool) -> None:
    sent = COMPRESS[coding](bytes(size))
    if fits:
        assert len(await read(sent, coding)) == size
    else:
        assert await refused(sent, coding) == "body-too-large"


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
async def test_a_bomb_is_never_inflated_past_the_limit(coding: Coding) -> None:
    bomb = COMPRESS[coding](bytes(100_000_000))
    tracemalloc.start()
    try:
        assert await refused(bomb, coding) == "body-too-large"
        assert tracemalloc.get_traced_memory()[1] < 10 * LIMIT
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("coding", "empty"),
    [
        pytest.param("gzip", gzip.compress(b""), id="gzip"),  # it holds the time, which would be another name in each process
        pytest.param("zstd", zstd.compress(b""), id="zstd"),
        pytest.param("zstd", b"\x50\x2a\x4d\x18" + bytes(4), id="zstd-skippable"),
    ],
)
async def test_streams_that_hold_nothing_are_not_inflated_for_ever(coding: Coding, empty: bytes) -> None:
    some = COMPRESS[coding](b"some text")
    assert await read(empty * 999 + some, coding) == b"some text"
    assert await refused(empty * 1_000 + some, coding) == "invalid-body"


async def test_what_is_announced_too_long_is_refused_before_it_is_read() -> None:
    async def receive() -> MutableMapping[str, Any]:
        raise AssertionError("read on")

    with pytest.raises(ProblemError):
        await read_body([(b"content-length", b"11")], receive, "identity", bytes_max=10, what="too long")


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
@pytest.mark.parametrize("spoil", [lambda b: b[:-3], lambda b: b"", lambda b: b"junk" + b, lambda b: b + b"junk"])
async def test_what_is_not_whole_or_not_compressed_is_400(coding: Coding, spoil: Any) -> None:
    assert await refused(spoil(COMPRESS[coding](b"some text" * 50)), coding) == "invalid-body"


async def test_a_damaged_gzip_body_is_400() -> None:
    sent = bytearray(gzip.compress(b"some text" * 50))
    sent[14] ^= 0xFF
    assert await refused(bytes(sent), "gzip") == "invalid-body"


async def test_deflate_named_gzip_is_400() -> None:
    assert await refused(zlib.compress(b"{}"), "gzip") == "invalid-body"


async def test_a_window_beyond_what_every_decoder_supports_is_400() -> None:
    options: dict[int, int] = {zstd.CompressionParameter.window_log: 27, zstd.CompressionParameter.content_size_flag: 0}
    compressor = zstd.ZstdCompressor(options=options)
    sent = compressor.compress(b"x" * 10) + compressor.flush()
    assert await refused(sent, "zstd") == "invalid-body"


async def test_a_caller_who_goes_away_is_nobody_to_answer() -> None:
    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.disconnect"}

    with pytest.raises(ClientGone):
        await read_body([], receive, "identity", bytes_max=10, what="")
