"""The egress guard when connecting: names are looked up once, every address is checked, and only a checked one is connected to.

Three places, because each sees what the others do not: the resolver sees all addresses of a name, the socket factory every address that is
about to be connected to (also one that stood in the URL, which resolvers are not asked for), the connector the peer it is connected to.
The rules themselves are `access.egress`.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Sequence
from contextvars import ContextVar
from functools import cache
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.connector import Connection
from aiohttp.tracing import Trace

from access import egress
from access.addresses import Address
from delivery.lookups import Lookup, Lookups
from delivery.meter import Meter

#: Checked addresses of one name that are tried; the rest of them were checked as well.
ADDRESSES_MAX: Final = 4
_DNS_CACHE_S: Final = 10
#: Bytes the kernel takes from a receiver before we do; it doubles the number for its own book-keeping.
_RECEIVE_BUFFER_BYTES: Final = 32_768

#: Addresses that were connected to for the request under way: aiohttp goes through what is left of its list again after each failure.
_tried: Final[ContextVar[set[str]]] = ContextVar("tried")


class EgressDenied(Exception):
    """An address that webhooks may not reach. The text is for operators only: it tells what a name stands for inside our network.

    No `OSError`, because aiohttp goes on to the next address after one.
    """


class Guard:
    """The rules, applied to addresses."""

    def __init__(self, rules: egress.Rules) -> None:
        self.rules = rules

    def check(self, address: Address, port: int) -> None:
        """Raises `EgressDenied`."""
        reason = egress.refusal(address, self.rules)
        if reason is None and not self.rules.insecure and is_own(address):
            reason = egress.own_refusal(address, port, self.rules)
        if reason is not None:
            raise EgressDenied(f"{address} port {port}: {reason}")

    def check_peer(self, transport: asyncio.BaseTransport) -> None:
        """Whom the socket is really connected to. Raises `EgressDenied`."""
        peer = transport.get_extra_info("peername")
        if peer is None:
            raise EgressDenied("the connection has no peer")
        if (reason := egress.refusal(ip_address(peer[0]), self.rules)) is not None:
            raise EgressDenied(f"connected to {peer[0]}: {reason}")

    def open_socket(self, addr_info: tuple[Any, ...]) -> socket.socket:
        """aiohttp's socket factory: the last look before connecting. Raises `EgressDenied`, `OSError`."""
        host, port = addr_info[4][:2]
        self.check(ip_address(host), port)
        if host in (tried := _tried.get()):
            raise ConnectionAbortedError(f"{host} was tried in this attempt")
        tried.add(host)
        return small_socket(addr_info)


def small_socket(addr_info: tuple[Any, ...]) -> socket.socket:
    """A socket whose receive buffer bounds what one read can bring."""
    opened = socket.socket(*addr_info[:3])
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
    return opened


def is_own(address: Address) -> bool:
    """Whether the address is one of this host: only its own can be bound. Never where the kernel lets any be bound (ip_nonlocal_bind)."""
    return _binds(address) and not _binds_any(address.version)


def _binds(address: Address) -> bool:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((str(address), 0))
    except OSError:
        return False
    return True


@cache
def _binds_any(version: int) -> bool:
    return _binds(ip_address("192.0.2.1" if version == 4 else "2001:db8::1"))  # documentation: nobody's


def system_lookup(name: str) -> Sequence[str]:
    """All addresses in the order of RFC 6724. Raises `OSError`.

    Without AI_ADDRCONFIG: what this host cannot reach is checked as well, so that a verdict does not depend on where it is given.
    """
    return [str(found[4][0]) for found in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)]


class Resolver(AbstractResolver):
    """Looks names up within `timeout_s` and checks all of their addresses."""

    def __init__(self, guard: Guard, timeout_s: float, lookup: Lookup = system_lookup) -> None:
        self._guard = guard
        self._lookups = Lookups(lookup, timeout_s)

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC) -> list[ResolveResult]:
        """For aiohttp. Raises `EgressDenied` if any address is forbidden, `OSError`."""
        return [
            ResolveResult(hostname=host, host=str(address), port=port, family=family, proto=0, flags=socket.AI_NUMERICHOST)
            for address in await self.addresses(host, port)
        ]

    async def addresses(self, name: str, port: int) -> list[Address]:
        """The first checked addresses. Raises `EgressDenied` if any address is forbidden, `OSError`."""
        rules = self._guard.rules
        absolute = name if rules.insecure or rules.allowed else f"{name}."  # public names are: no search list of /etc/resolv.conf
        addresses = [ip_address(text) for text in dict.fromkeys(await self._lookups.find(absolute))]
        if not addresses:
            raise socket.gaierror(socket.EAI_NONAME, "the name has no address")
        for address in addresses:
            self._guard.check(address, port)
        return addresses[:ADDRESSES_MAX]

    async def close(self) -> None:
        """Threads under way end by themselves."""


class Connector(aiohttp.TCPConnector):
    """Connections that know whom they are connected to and bring no more than `bytes_max` for one request.

    Addresses are tried one after another, never raced, so that the first forbidden one ends the attempt. How many are under way at once
    is bounded by the worker: a limit per host here would let the endpoints of one host wait for each other within their deadlines.
    """

    def __init__(self, guard: Guard | None, resolver: AbstractResolver | None, context: ssl.SSLContext, bytes_max: int) -> None:
        """`guard` is None where only the proxy is connected to: what it is asked for was checked before."""
        super().__init__(
            ssl=context,
            resolver=resolver,
            ttl_dns_cache=_DNS_CACHE_S,
            limit=0,
            happy_eyeballs_delay=None,
            socket_factory=small_socket if guard is None else guard.open_socket,
        )
        self._guard = guard
        self._bytes_max = bytes_max

    async def connect(self, req: aiohttp.ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout) -> Connection:
        """A connection for one request, new or kept alive. Raises what aiohttp does, and `EgressDenied`."""
        _tried.set(set())
        connection = await aiohttp.TCPConnector.connect(self, req, traces, timeout)
        protocol = connection.protocol
        if protocol is None or (transport := protocol.transport) is None:
            return connection  # lost already, which aiohttp tells
        meter = transport.get_protocol()
        if not isinstance(meter, Meter):
            try:
                if self._guard is not None:
                    self._guard.check_peer(transport)
            except EgressDenied:
                connection.close()
                raise
            meter = Meter(protocol, transport)
            transport.set_protocol(meter)
        meter.allow(self._bytes_max)
        return connection


def tls_context(ca_file: Path | None) -> ssl.SSLContext:
    """Chain and name are always verified, TLS 1.2 at least. Raises `OSError`.

    The system's authorities are looked for where OpenSSL was built to look, not where SSL_CERT_FILE points: whom receivers are verified
    against is a setting.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if ca_file is not None:
        context.load_verify_locations(cafile=ca_file)
        return context
    paths = ssl.get_default_verify_paths()
    files = paths.openssl_cafile if Path(paths.openssl_cafile).is_file() else None
    folder = paths.openssl_capath if Path(paths.openssl_capath).is_dir() else None
    if files is None and folder is None:
        raise FileNotFoundError(
            f"there are no certificate authorities at {paths.openssl_cafile} or {paths.openssl_capath}: "
            "install them (ca-certificates) or name a file in TRIGGERS_DELIVERY__EGRESS_CA_FILE"
        )
    context.load_verify_locations(cafile=files, capath=folder)
    return context
