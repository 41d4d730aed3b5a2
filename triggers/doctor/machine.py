"""This machine: its clock beside the servers', the sockets of our processes, room for them."""

from __future__ import annotations

import resource
import shutil
import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from runtime.postgres import connect
from runtime.settings import Settings
from runtime.sql import load
from triggers.doctor.findings import Said, bad, ok, warn
from triggers.doctor.servers import connect_redis

#: Where `faust worker` opens a server for everybody unless it is told not to.
FAUST_PORT: Final = 6066
_PROC: Final = Path("/proc")
_LISTENS: Final = "0A"
#: Differences of clocks above which ids, signatures and expiries are wrong enough to be refused by others (Standard Webhooks: 5 minutes).
_SKEW_BAD_S: Final = 60.0
_FREE_BYTES_MIN: Final = 1 << 30


def clock_of_postgres(settings: Settings) -> Iterator[Said]:
    with connect(settings.postgres, application="doctor", restoring=True) as connection:

        def ask() -> float:
            row = connection.execute(load("triggers", "doctor_clock")).fetchone()
            return float(row[0]) if row else 0.0

        yield from _compare("PostgreSQL", ask, settings)


def clock_of_redis(settings: Settings) -> Iterator[Said]:
    client = connect_redis(settings)
    try:

        def ask() -> float:
            seconds, micros = client.time()
            return float(seconds) + float(micros) / 1_000_000

        yield from _compare("Redis", ask, settings)
    finally:
        client.close()


def _compare(server: str, ask: Callable[[], float], settings: Settings) -> Iterator[Said]:
    """The second of two questions: the first may have had to connect. Half of its time is what cannot be known."""
    for _ in range(2):
        before_s, began_s = time.time(), time.monotonic()
        theirs_s = ask()
        took_s = time.monotonic() - began_s
    skew_s = theirs_s - (before_s + took_s / 2)
    what = f"the clock of {server} is {abs(skew_s):.3f} s {'ahead of' if skew_s > 0 else 'behind'} this machine's (±{took_s / 2:.3f} s)"
    sure_s = abs(skew_s) - took_s / 2
    advice = "run a time service (chrony, systemd-timesyncd) on both machines"
    if sure_s > _SKEW_BAD_S:
        yield bad(what, advice)
    elif sure_s > settings.operating.clock_skew_s:
        yield warn(what, advice)
    else:
        yield ok(what)


class Listener(NamedTuple):
    """A socket that one of our processes listens on. `command`: what it runs, as `process dedup`."""

    pid: int
    command: str
    address: str
    port: int

    @property
    def is_open(self) -> bool:
        return self.address in ("0.0.0.0", "::")  # noqa: S104 - it is looked for, not bound


def sockets(settings: Settings) -> Iterator[Said]:
    if not (_PROC / "net" / "tcp").exists():
        yield ok("sockets are not looked at: there is no /proc here")
        return
    yield from judge_sockets(listeners(), settings)


def judge_sockets(found: list[Listener], settings: Settings) -> Iterator[Said]:
    """What each process of ours may listen on: the API on its port, every process on one for its metrics."""
    if not found:
        yield ok("no process of this product listens on this machine, as far as this user can see")
    for one in found:
        where = f"`triggers {one.command}` ({one.pid}) listens on {one.address}:{one.port}"
        if one.port == FAUST_PORT:
            yield bad(f"{where}: Faust's web server, which asks nobody who he is", "start processors with `triggers process …` only")
        elif one.is_open and settings.environment == "production" and one.command != "serve":
            yield warn(f"{where}: metrics for every network", "set TRIGGERS_TELEMETRY__METRICS_HOST, or let a firewall close the port")
        elif one.is_open and settings.environment == "production":
            yield warn(f"{where}: every network reaches it without TLS", "set TRIGGERS_API__HOST, or let only the proxy through")
        else:
            yield ok(where)
    by_process: dict[int, list[Listener]] = {}
    for one in found:
        by_process.setdefault(one.pid, []).append(one)
    for pid, several in by_process.items():
        if len({one.port for one in several}) > 1:
            ports = ", ".join(f"{one.address}:{one.port}" for one in several)
            yield bad(
                f"`triggers {several[0].command}` ({pid}) listens on more than one port: {ports}", "nothing of ours needs a second one"
            )


def listeners(proc: Path = _PROC) -> list[Listener]:
    """Of processes of this product that this user may look into."""
    by_inode = dict(_listening(proc))
    found = set()
    for folder in proc.iterdir():
        if not folder.name.isdecimal():
            continue
        try:
            command = command_of((folder / "cmdline").read_bytes())
            if command is None:
                continue
            for link in (folder / "fd").iterdir():
                target = str(link.readlink())
                if target.startswith("socket:[") and (place := by_inode.get(target[8:-1])) is not None:
                    found.add(Listener(int(folder.name), command, *place))
        except OSError:  # it ended meanwhile, or is another user's
            continue
    return sorted(found)


def command_of(cmdline: bytes) -> str | None:
    """`serve`, `process dedup`, `process project` or `deliver`; None for everything else."""
    words = cmdline.decode(errors="replace").split("\0")
    for place, word in enumerate(words[:-1]):
        if Path(word).name == "triggers" and (place == 1 or words[place - 1] == "-m" or place == 0):
            rest = [one for one in words[place + 1 :] if one]
            if rest[:1] == ["process"]:
                return " ".join(rest[:2])
            return rest[0] if rest[:1] in (["serve"], ["deliver"]) else None
    return None


def _listening(proc: Path) -> Iterator[tuple[str, tuple[str, int]]]:
    """(inode, (address, port)) of every TCP socket that listens (proc(5), /proc/net/tcp)."""
    for name, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        try:
            lines = (proc / "net" / name).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == _LISTENS:
                packed, _, port = fields[1].partition(":")
                # Each 32-bit word is written as this machine's number.
                words = [int(packed[at : at + 8], 16) for at in range(0, len(packed), 8)]
                yield fields[9], (socket.inet_ntop(family, struct.pack(f"={len(words)}I", *words)), int(port, 16))


def room(settings: Settings) -> Iterator[Said]:
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files != resource.RLIM_INFINITY and files < settings.api.connections_max:
        yield warn(
            f"a process may open {files} files, TRIGGERS_API__CONNECTIONS_MAX is {settings.api.connections_max}",
            "raise the limit (ulimit -n, LimitNOFILE=): the API takes fewer connections until then",
        )
    folder = settings.processor.data_dir
    there = next(one for one in (folder.absolute(), *folder.absolute().parents) if one.exists())
    free = shutil.disk_usage(there).free
    if free < _FREE_BYTES_MIN:
        yield bad(f"{free:,} bytes are free under {folder}", "make room: the dedup table lies there, and a full disk stops it")
    else:
        yield ok(f"{free >> 30} GiB are free under {folder}")
