"""The outside world of `room`, in a network namespace of its own: every address that is routed here answers on port 443, and one name
server. Counts who was connected to.

Run by `room` with a certificate file and the name server's address; answers `count` on standard input with JSON.
"""

from __future__ import annotations

import json
import socket
import ssl
import struct
import sys
import threading
from collections import Counter
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

_A, _CNAME, _AAAA = 1, 5, 28
_OK, _SERVFAIL, _NXDOMAIN = 0, 2, 3

PUBLIC: Final = "93.184.216.34"
PUBLIC_V6: Final = "2606:4700::34"

#: Names and what they stand for; a list of lists is one answer after the other.
ZONE: Final[dict[str, list[str]]] = {
    "good": [PUBLIC, PUBLIC_V6],
    "good6": [PUBLIC_V6],
    "redirect": [PUBLIC],
    "many": [f"93.184.216.{n}" for n in range(30, 80)],
    "private": ["10.0.0.1"],
    "mixed": [PUBLIC, "10.0.0.1"],
    "mixed6": [PUBLIC, "::1"],
    "private6": ["fd00:ec2::254"],
    "mapped": ["::ffff:10.0.0.1"],
    "translated": ["64:ff9b::a9fe:a9fe"],
    "many-bad": [*(f"93.184.216.{n}" for n in range(30, 80)), "192.168.0.1"],
    "127.0.0.1.nip": ["127.0.0.1"],
    "own": ["93.184.216.99"],
    "metadata": ["169.254.169.254"],
}
ALIASES: Final = {"alias": "metadata", "loop": "pool", "pool": "loop"}

connected: Final[Counter[str]] = Counter()
asked: Final[Counter[str]] = Counter()


def find(name: str) -> list[str] | None:
    """Addresses of a name below example.com; `canary-<hex>` stands for the address in it. None if there is no such name."""
    label = name.removesuffix(".example.com")
    if label == "rebind":
        return [PUBLIC] if asked[name] <= 2 else ["127.0.0.1", "10.0.0.1"]  # A and AAAA are asked at once
    if label.startswith("canary-"):
        return [str(ip_address(bytes.fromhex(label.removeprefix("canary-"))))]
    return ZONE.get(label)


def answer(query: bytes) -> bytes | None:
    """RFC 1035, as much as a stub resolver needs. None: silence."""
    labels: list[str] = []
    at = 12
    while size := query[at]:
        labels.append(query[at + 1 : at + 1 + size].decode())
        at += 1 + size
    kind = struct.unpack_from("!H", query, at + 1)[0]
    question = query[12 : at + 5]
    name = ".".join(labels).lower()
    asked[name] += 1
    label = name.removesuffix(".example.com")
    if label == "silent":
        return None
    records: list[bytes] = []
    code = _OK
    if label in ALIASES:
        records.append(record(b"\xc0\x0c", _CNAME, encode(f"{ALIASES[label]}.example.com")))
        name = f"{ALIASES[label]}.example.com"
    if label == "servfail" or (label in ALIASES and name.removesuffix(".example.com") in ALIASES):
        code, records = _SERVFAIL, []
    elif (addresses := find(name)) is None:
        code = _NXDOMAIN
    else:
        owner = encode(name) if records else b"\xc0\x0c"
        for address in map(ip_address, addresses):
            if (kind == _A and isinstance(address, IPv4Address)) or (kind == _AAAA and isinstance(address, IPv6Address)):
                records.append(record(owner, kind, address.packed))
    return query[:2] + struct.pack("!HHHHH", 0x8180 | code, 1, len(records), 0, 0) + question + b"".join(records)


def encode(name: str) -> bytes:
    return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"


def record(owner: bytes, kind: int, data: bytes) -> bytes:
    return owner + struct.pack("!HHIH", kind, 1, 0, len(data)) + data  # a TTL of 0


def serve_names(address: str) -> None:
    listening = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    listening.bind((address, 53))
    while True:
        query, asker = listening.recvfrom(4_096)
        if (reply := answer(query)) is not None:
            listening.sendto(reply, asker)


def serve_https(family: socket.AddressFamily, host: str, context: ssl.SSLContext) -> None:
    listening = socket.create_server((host, 443), family=family)
    while True:
        accepted, _ = listening.accept()
        connected[str(accepted.getsockname()[0])] += 1
        threading.Thread(target=serve_one, args=(accepted, context), daemon=True).start()


def serve_one(accepted: socket.socket, context: ssl.SSLContext) -> None:
    with accepted, suppress(OSError):
        accepted.settimeout(5)
        with context.wrap_socket(accepted, server_side=True) as secured:
            head = secured.recv(65_536)
            if b"\r\nHost: redirect." in head:
                secured.sendall(
                    b"HTTP/1.1 307 X\r\nLocation: http://169.254.169.254:443/\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                )
            else:
                secured.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")


def serve(certificate: str) -> None:
    """Count and answer on port 443 of every address, IPv4 and IPv6."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    threading.Thread(target=serve_https, args=(socket.AF_INET, "0.0.0.0", context), daemon=True).start()
    threading.Thread(target=serve_https, args=(socket.AF_INET6, "::", context), daemon=True).start()


def main() -> None:
    certificate, name_server = sys.argv[1:]
    serve(certificate)
    threading.Thread(target=serve_names, args=(name_server,), daemon=True).start()
    print("ready", flush=True)
    for _ in sys.stdin:
        print(json.dumps(connected), flush=True)


if __name__ == "__main__":
    main()
