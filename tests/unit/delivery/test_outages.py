"""Our own outages, as the attempt meets them: they are `local`, and what a receiver does never is. Real sockets, no network needed."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import pytest

from delivery.attempt import Result, Sender
from delivery.lookups import Lookup
from runtime.settings import DeliverySettings, Settings

SETTINGS = Settings(delivery=DeliverySettings(allow_insecure_endpoints=True))


@contextmanager
def no_more_files() -> Iterator[None]:
    """The process may open none."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 256), hard))
    taken: list[int] = []
    with suppress(OSError):
        while True:
            taken.append(os.open("/dev/null", os.O_RDONLY))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in taken:
            os.close(descriptor)


def failing(number: int) -> Lookup:
    """A resolver as getaddrinfo fails."""

    def lookup(_: str) -> Sequence[str]:
        raise socket.gaierror(number, "failed")

    return lookup


async def post(sender: Sender, url: str) -> Result:
    return await sender.post(url, b"{}", {}, 5.0)


async def test_no_file_descriptors_left_is_our_own_failure() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        async with Sender(SETTINGS) as sender:
            with no_more_files():
                assert (await post(sender, url)).error == "local"


@pytest.mark.parametrize(("number", "error"), [(socket.EAI_AGAIN, "local"), (socket.EAI_NONAME, "dns")])
async def test_a_resolver_out_of_reach_is_our_failure_a_name_that_is_not_there_is_not(number: int, error: str) -> None:
    async with Sender(SETTINGS, failing(number)) as sender:
        assert (await post(sender, "http://receiver.example/")).error == error


async def test_a_receiver_that_is_not_there_is_its_own_failure() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    async with Sender(SETTINGS) as sender:
        assert (await post(sender, f"http://127.0.0.1:{port}/")).error == "connect"
