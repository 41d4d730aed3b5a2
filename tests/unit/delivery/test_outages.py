"""Our own outages, as the attempt meets them: they are `local`, and what a receiver does never is. Real sockets, no network needed."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from delivery import attempt
from runtime.settings import DeliverySettings

SETTINGS = DeliverySettings(allow_insecure_endpoints=True)


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


class Failing(AbstractResolver):
    """A resolver as getaddrinfo fails."""

    def __init__(self, number: int) -> None:
        self._number = number

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> list[ResolveResult]:
        raise socket.gaierror(self._number, "failed")

    async def close(self) -> None: ...


async def post(client: aiohttp.ClientSession, url: str) -> attempt.Result:
    return await attempt.post(client, SETTINGS, url, b"{}", {}, 5.0)


async def test_no_file_descriptors_left_is_our_own_failure() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        async with attempt.session(SETTINGS) as client:
            with no_more_files():
                assert (await post(client, url)).error == "local"


@pytest.mark.parametrize(("number", "error"), [(socket.EAI_AGAIN, "local"), (socket.EAI_NONAME, "dns")])
async def test_a_resolver_out_of_reach_is_our_failure_a_name_that_is_not_there_is_not(number: int, error: str) -> None:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(resolver=Failing(number))) as client:
        assert (await post(client, "http://receiver.example/")).error == error


async def test_a_receiver_that_is_not_there_is_its_own_failure() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    async with attempt.session(SETTINGS) as client:
        assert (await post(client, f"http://127.0.0.1:{port}/")).error == "connect"
