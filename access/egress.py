"""Where webhooks may go: the rules for URLs and addresses, asked at registration and at every attempt. Pure.

yarl parses a URL here and for the request (aiohttp), so no second parser can read it otherwise. A name is judged by its form here, and by
every address it resolves to when connecting (`delivery.egress`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final, NamedTuple

from yarl import URL

from access.addresses import Address, Network, denied, embedded
from runtime.settings import Settings

URL_CHARS_MAX: Final = 2_048
_NAME_CHARS_MAX: Final = 253
_LABEL: Final = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
#: A host whose last label is this is an IPv4 address in some form, to parsers that take them (URL Standard, "ends in a number checker").
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")
#: Names that the public DNS will never have: RFC 6761, RFC 6762, RFC 7686, RFC 8375, RFC 9476, ICANN resolution 2024.07.29.06.
_LOCAL_NAMES: Final = ("localhost", "localdomain", "local", "internal", "intranet", "lan", "home.arpa", "onion", "alt", "test", "invalid")


class Rules(NamedTuple):
    """What one installation allows. `insecure` is the development switch: http, every name, address and port."""

    insecure: bool = False
    ports: frozenset[int] = frozenset((443, 8443))
    #: Networks that may be reached although they are on the deny list. With any, local names are taken too: the addresses decide.
    allowed: tuple[Network, ...] = ()
    #: Networks that may not be reached although they are public: the installation's own addresses behind a translator.
    denied: tuple[Network, ...] = ()
    #: Ports this product listens on itself: not reachable under an address of this host, even where `allowed` names it.
    own_ports: frozenset[int] = frozenset()


def rules(settings: Settings) -> Rules:
    delivery = settings.delivery
    return Rules(
        insecure=delivery.allow_insecure_endpoints,
        ports=frozenset(delivery.egress_ports),
        allowed=_networks(delivery.egress_allowed_networks),
        denied=_networks(delivery.egress_denied_networks),
        own_ports=frozenset(port for port in (settings.api.port, settings.telemetry.metrics_port) if port),
    )


def _networks(networks: Iterable[object]) -> tuple[Network, ...]:
    return tuple(ip_network(str(network)) for network in networks)


def check_url(text: str, rules: Rules) -> str:
    """The URL as it will be used. Raises `ValueError` saying what to change."""
    read_url(text, rules)
    return text


def read_url(text: str, rules: Rules) -> URL:
    """The URL as the client connects by it. Raises `ValueError` saying what to change."""
    if not text.isprintable() or " " in text or len(text) > URL_CHARS_MAX:
        raise ValueError(f"the URL must have at most {URL_CHARS_MAX} printable characters and no spaces")
    try:
        url = URL(text)
        host, port = url.raw_host, url.port
        url.host  # noqa: B018 - decodes the name (IDNA), which may fail
    except ValueError as error:  # also what the IDNA codec raises
        raise ValueError(f"the URL cannot be read: {error}") from None
    if url.scheme != "https" and not (rules.insecure and url.scheme == "http"):
        raise ValueError("the URL must start with https://")
    if not host or port is None:
        raise ValueError("the URL must name a host")
    authority = _authority(text)
    if "@" in authority:
        raise ValueError("the URL must not hold a user name or password: receivers verify the signature instead")
    if "#" in text:
        raise ValueError("the URL must not hold a fragment (#): it would never be sent")
    if "%" in authority:
        raise ValueError("the URL's host must be a plain name or address, without % in it")
    if port == 0:
        raise ValueError("port 0 cannot be connected to")
    if not rules.insecure:
        if port not in rules.ports:
            raise ValueError(f"port {port} is not one that webhooks are sent to: {', '.join(map(str, sorted(rules.ports)))}")
        _check_host(host, authority, rules)
    return url


def _authority(text: str) -> str:
    """What stands between `//` and the path (RFC 3986 section 3.2). yarl drops an empty user name without a trace, so the text decides."""
    return re.split(r"[/?#]", text.split("//", 1)[-1], maxsplit=1)[0]


def _check_host(host: str, authority: str, rules: Rules) -> None:
    address = literal(host)
    if address is not None:
        if isinstance(address, IPv4Address) and authority.partition(":")[0] != host:
            raise ValueError(f"the URL's host is the address {host} in another writing: give it in plain digits")
        if refusal(address, rules):
            raise ValueError(f"the address {host} cannot be a receiver: webhooks go to public addresses only")
        return
    if "[" in authority:  # IPvFuture, which yarl reads as a name
        raise ValueError("the URL's host must be an IPv6 address where it stands in brackets")
    if host.endswith("."):
        raise ValueError("the URL's host must not end with a dot")
    labels = host.split(".")
    if len(host) > _NAME_CHARS_MAX or not all(map(_LABEL.fullmatch, labels)):
        raise ValueError("the URL's host must be a plain name or address: letters, digits, _ and - in parts joined by dots")
    if _NUMBER.fullmatch(labels[-1]):
        raise ValueError("the URL's host looks like an address in an unusual writing: give it as four plain numbers, like 192.0.2.1")
    if rules.allowed:
        return
    if len(labels) == 1 or any(f".{host}".endswith(f".{name}") for name in _LOCAL_NAMES):
        raise ValueError(f"{host} is a name of a local network: webhooks go to names of the public DNS only")


def literal(host: str) -> Address | None:
    """The address, if the host of a parsed URL is one in its only plain form; None for everything else."""
    try:
        return ip_address(host)
    except ValueError:
        return None


def refusal(address: Address, rules: Rules) -> str | None:
    """Why this address may not be connected to, for operators only; None if it may.

    An address that carries others (IPv4 in IPv6) is refused for any of them. What the installation denies goes before what it allows,
    and that before the list.
    """
    if rules.insecure:
        return None
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        return "an address with a zone"
    for each in (address, *embedded(address)):
        if any(each in network for network in rules.denied):
            return "denied by TRIGGERS_DELIVERY__EGRESS_DENIED_NETWORKS"
        if any(each in network for network in rules.allowed):
            continue
        if (row := denied(each)) is not None:
            return f"{row.network}: {row.name} ({row.source})"
    return None


def own_refusal(address: Address, port: int, rules: Rules) -> str | None:
    """Why an address of this very host may not be connected to; None if it may. Only what is allowed by name may, but for own ports."""
    if rules.insecure:
        return None
    if port in rules.own_ports:
        return "a port of this product"
    if any(address in network for network in rules.allowed):
        return None
    return "an address of this host"
