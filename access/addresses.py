"""Which IP addresses no webhook may reach. Pure.

The list is explicit: `ipaddress.is_global` lets multicast, IPv4 inside IPv6 and cloud metadata services through (CVE-2024-4032 and
RELIABILITY 0.8 have the measurements). Every address that carries another is judged by both. The rule about who may make exceptions is
`access.egress`.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import Final, NamedTuple

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


class Denied(NamedTuple):
    network: Network
    #: What it is for.
    name: str
    #: Where that is written down.
    source: str


def _denied(*rows: tuple[str, str, str]) -> tuple[Denied, ...]:
    return tuple(Denied(ip_network(network), name, source) for network, name, source in rows)


#: IANA IPv4 Special-Purpose Address Registry, with what it leaves out: multicast, and what Azure put into public space.
DENIED_V4: Final = _denied(
    ("0.0.0.0/8", "this host on this network", "RFC 791, 3.2"),
    ("10.0.0.0/8", "private use", "RFC 1918"),
    ("100.64.0.0/10", "shared address space; metadata of Alibaba Cloud", "RFC 6598"),
    ("127.0.0.0/8", "loopback", "RFC 1122, 3.2.1.3"),
    ("168.63.129.16/32", "Azure platform services", "learn.microsoft.com, what-is-ip-address-168-63-129-16"),
    ("169.254.0.0/16", "link local; metadata of most clouds", "RFC 3927"),
    ("172.16.0.0/12", "private use", "RFC 1918"),
    ("192.0.0.0/24", "IETF protocol assignments; metadata of Oracle Cloud", "RFC 6890, 2.1"),
    ("192.0.2.0/24", "documentation", "RFC 5737"),
    ("192.31.196.0/24", "AS112", "RFC 7535"),
    ("192.52.193.0/24", "automatic multicast tunneling", "RFC 7450"),
    ("192.88.99.0/24", "6to4 relay anycast", "RFC 7526"),
    ("192.168.0.0/16", "private use", "RFC 1918"),
    ("192.175.48.0/24", "AS112", "RFC 7534"),
    ("198.18.0.0/15", "benchmarking", "RFC 2544"),
    ("198.51.100.0/24", "documentation", "RFC 5737"),
    ("203.0.113.0/24", "documentation", "RFC 5737"),
    ("224.0.0.0/4", "multicast", "RFC 5771"),
    ("240.0.0.0/4", "reserved, with the limited broadcast address", "RFC 1112, 4"),
)

#: IANA IPv6 Special-Purpose Address Registry. The last row closes everything that is not global unicast yet.
DENIED_V6: Final = _denied(
    ("::/128", "unspecified", "RFC 4291, 2.5.2"),
    ("::1/128", "loopback", "RFC 4291, 2.5.3"),
    ("::/96", "IPv4-compatible", "RFC 4291, 2.5.5.1"),
    ("::ffff:0:0/96", "IPv4-mapped", "RFC 4291, 2.5.5.2"),
    ("::ffff:0:0:0/96", "IPv4-translated", "RFC 2765, 2.1"),
    ("64:ff9b:1::/48", "local-use translation", "RFC 8215"),
    ("100::/64", "discard only", "RFC 6666"),
    ("100:0:0:1::/64", "dummy prefix", "RFC 9780"),
    ("2001::/23", "IETF protocol assignments, with Teredo, benchmarking and ORCHID", "RFC 2928; RFC 4380; RFC 5180; RFC 7343"),
    ("2001:db8::/32", "documentation", "RFC 3849"),
    ("2002::/16", "6to4", "RFC 3056; RFC 7526"),
    ("2620:4f:8000::/48", "AS112", "RFC 7534"),
    ("3fff::/20", "documentation", "RFC 9637"),
    ("5f00::/16", "segment routing", "RFC 9602"),
    ("fc00::/7", "unique local; metadata of AWS and Google Cloud", "RFC 4193"),
    ("fe80::/10", "link local", "RFC 4291, 2.5.6"),
    ("fec0::/10", "site local", "RFC 3879"),
    ("ff00::/8", "multicast", "RFC 4291, 2.7"),
)
_GLOBAL_UNICAST: Final = IPv6Network("2000::/3")
#: The well-known prefix of NAT64 lies outside global unicast and is judged by the IPv4 address in it: networks with IPv6 only reach
#: every IPv4 receiver this way (RFC 6052, 2.1).
_NAT64: Final = IPv6Network("64:ff9b::/96")
_NOT_GLOBAL: Final = Denied(IPv6Network("::/0"), "not global unicast", "RFC 4291, 2.4; IANA IPv6 Global Unicast Address Assignments")

#: Prefixes whose last 32 bits are an IPv4 address: compatible, mapped, translated, NAT64 well-known and local (RFC 8215 in the /96 form).
_LAST_32_BITS: Final = tuple(map(IPv6Network, ("::/96", "::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48")))
#: Interface identifiers of ISATAP, under any prefix (RFC 5214, 6.1), without and with the universal bit.
_ISATAP: Final = (0x00005EFE, 0x02005EFE)


def embedded(address: Address) -> tuple[IPv4Address, ...]:
    """The IPv4 addresses that an IPv6 address carries: what a translator or tunnel on the way would connect to."""
    if isinstance(address, IPv4Address) or int(address) in (0, 1):
        return ()
    found: list[IPv4Address] = []
    last = IPv4Address(int(address) & 0xFFFF_FFFF)
    if any(address in network for network in _LAST_32_BITS) or (int(address) >> 32) & 0xFFFF_FFFF in _ISATAP:
        found.append(last)
    if address.sixtofour is not None:
        found.append(address.sixtofour)
    if address.teredo is not None:
        found += address.teredo
    return tuple(found)


def denied(address: Address) -> Denied | None:
    """The first network of the lists that holds the address, by itself: what it carries is judged apart (`embedded`)."""
    if isinstance(address, IPv4Address):
        return next((row for row in DENIED_V4 if address in row.network), None)
    found = next((row for row in DENIED_V6 if address in row.network), None)
    if found is None and address not in _GLOBAL_UNICAST and address not in _NAT64:
        return _NOT_GLOBAL
    return found
