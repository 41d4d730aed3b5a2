"""A network of the test's own: this process in one namespace, `outside` in another, a cable between them, and the system's resolver
pointed at the name server there. Nothing here reaches the machine's network.

Run under `unshare --user --map-root-user --net --mount`; prints one JSON object (`Report`).
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from ipaddress import ip_address
from pathlib import Path
from typing import Final, TypedDict

import uvloop

from delivery.attempt import Sender
from runtime.settings import DeliverySettings, Settings
from tests.contract.egress import outside
from tests.contract.egress.certificates import authority, certificate
from tests.unit.access.test_egress import FORBIDDEN

OWN: Final = "93.184.216.99"
NAME_SERVER: Final = "93.184.216.53"
OWN_V6: Final = "2606:4700::99"
GATEWAY_V6: Final = "2606:4700::53"
NAMES: Final = (
    "good", "good6", "many", "redirect", "private", "mixed", "mixed6", "private6", "mapped", "translated", "many-bad", "127.0.0.1.nip",
    "own", "alias", "metadata", "loop", "nowhere", "servfail", "silent",
)  # fmt: skip


class Report(TypedDict):
    #: Forbidden addresses at which a plain connection reached a canary, before the guard was tried: the canaries work.
    reachable: list[str]
    #: Connections to canaries while webhooks were tried: address to count, by `outside` and here.
    outside: dict[str, int]
    here: dict[str, int]
    #: Name or address to [status, error class, seconds].
    results: dict[str, list[object]]
    rebind: list[list[object]]


def ip(*arguments: str, of: int | None = None) -> None:
    prefix = [] if of is None else ["nsenter", "--target", str(of), "--net"]
    subprocess.run([*prefix, "ip", *arguments], check=True)


def connect_networks(pid: int) -> None:
    """A cable to the namespace of `pid`, where every address is local."""
    ip("link", "add", "inner", "type", "veth", "peer", "name", "outer")
    ip("link", "set", "outer", "netns", str(pid))
    ends = (("inner", OWN, OWN_V6, NAME_SERVER, GATEWAY_V6, None), ("outer", NAME_SERVER, GATEWAY_V6, OWN, OWN_V6, pid))
    for device, own, own_v6, other, other_v6, of in ends:
        ip("link", "set", "lo", "up", of=of)
        ip("link", "set", device, "up", of=of)
        ip("address", "add", own, "peer", other, "dev", device, of=of)
        ip("-6", "address", "add", own_v6, "peer", other_v6, "dev", device, "nodad", of=of)
    ip("route", "add", "default", "via", NAME_SERVER, "dev", "inner")
    ip("-6", "route", "add", "default", "via", GATEWAY_V6, "dev", "inner")
    # What comes over the cable is local there, whatever its address; what goes back is not. IPv4 looks for the former in `local` alone.
    ip("route", "add", OWN, "dev", "outer", "table", "local", of=pid)
    ip("route", "add", "local", "default", "dev", "lo", "table", "local", of=pid)
    ip("-6", "route", "add", "local", "default", "dev", "lo", "table", "100", of=pid)
    ip("-6", "rule", "add", "iif", "outer", "lookup", "100", of=pid)


def reachable(addresses: Iterable[str]) -> list[str]:
    found = []
    for address in addresses:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as plain:
            plain.settimeout(0.3)
            if plain.connect_ex((address, 443)) == 0:
                found.append(address)
    return found


async def try_webhooks(ca_file: Path) -> tuple[dict[str, list[object]], list[list[object]]]:
    settings = Settings(delivery=DeliverySettings(egress_ca_file=ca_file, attempt_timeout_s=8.0, dns_timeout_s=1.5))

    async def attempt(sender: Sender, host: str) -> list[object]:
        began = time.monotonic()
        result = await sender.post(f"https://{host}/hook", b"{}", {})
        return [result.status, result.error, time.monotonic() - began]

    results: dict[str, list[object]] = {}
    async with Sender(settings) as sender:
        for name in NAMES:
            results[name] = await attempt(sender, f"{name}.example.com")
        for address in FORBIDDEN:
            results[f"literal {address}"] = await attempt(sender, f"[{address}]" if ":" in address else address)
            results[f"name of {address}"] = await attempt(sender, f"canary-{ip_address(address).packed.hex()}.example.com")
    rebind = []
    for _ in range(3):
        async with Sender(settings) as sender:  # nothing is remembered
            rebind.append(await attempt(sender, "rebind.example.com"))
    return results, rebind


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        ca = authority()
        (ca_file := Path(folder) / "ca.pem").write_bytes(ca.pem())
        file = certificate("*.example.com", ca).write(Path(folder))
        there = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", 'read _ && exec "$@"', "sh", sys.executable, "-m", outside.__name__, str(file), NAME_SERVER],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert there.stdin is not None
        assert there.stdout is not None
        try:
            own_namespace = Path("/proc/self/ns/net").readlink()
            while Path(f"/proc/{there.pid}/ns/net").readlink() == own_namespace:
                time.sleep(0.01)
            connect_networks(there.pid)
            (resolv := Path(folder) / "resolv.conf").write_text(f"nameserver {NAME_SERVER}\noptions timeout:1 attempts:1\n")
            subprocess.run(["mount", "--bind", str(resolv), "/etc/resolv.conf"], check=True)
            outside.serve(str(file))
            there.stdin.write("go\n")
            there.stdin.flush()
            assert there.stdout.readline() == "ready\n"

            def count() -> dict[str, int]:
                assert there.stdin is not None
                assert there.stdout is not None
                there.stdin.write("count\n")
                there.stdin.flush()
                return dict(json.loads(there.stdout.readline()))

            seen = reachable(FORBIDDEN)
            while sum(count().values()) + sum(outside.connected.values()) < len(seen):
                time.sleep(0.01)
            before, here_before = count(), dict(outside.connected)
            results, rebind = uvloop.run(try_webhooks(ca_file))
            report = Report(
                reachable=seen,
                outside={address: n - before.get(address, 0) for address, n in count().items() if n > before.get(address, 0)},
                here={
                    address: n - here_before.get(address, 0) for address, n in outside.connected.items() if n > here_before.get(address, 0)
                },
                results=results,
                rebind=rebind,
            )
        finally:
            there.kill()
            there.wait()
    print(json.dumps(report), flush=True)
    os._exit(0)  # canaries and a look-up that nobody answers are still there


if __name__ == "__main__":
    asyncio.set_event_loop(None)
    main()
