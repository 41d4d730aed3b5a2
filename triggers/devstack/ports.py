"""The ports of a stack: chosen by the kernel once, remembered in the state folder, chosen again only when somebody else has taken one."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Ports:
    """TCP ports on 127.0.0.1, all different."""

    kafka: int
    kafka_controller: int
    postgres: int
    redis: int

    def __post_init__(self) -> None:
        chosen = list(asdict(self).values())
        if len(set(chosen)) != len(chosen):
            raise ValueError(f"the ports of a stack have to be different: {self}")


def is_free(port: int) -> bool:
    """Whether a server could listen there now, connections of an earlier server that linger notwithstanding."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on now. They are held together while they are chosen, so that they differ."""
    with contextlib.ExitStack() as held:
        chosen = []
        for _ in range(count):
            one = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            one.bind((LOOPBACK, 0))
            chosen.append(int(one.getsockname()[1]))
        return chosen


def choose() -> Ports:
    return Ports(*free_ports(4))


def still_good(remembered: Ports, free: Callable[[int], bool] = is_free, pick: Callable[[int], list[int]] = free_ports) -> Ports:
    """The remembered ports, with those that somebody else has taken since replaced. Called while no server of the stack runs."""
    taken = [name for name, port in asdict(remembered).items() if not free(port)]
    return replace(remembered, **dict(zip(taken, pick(len(taken)), strict=True)))


def load(path: Path) -> Ports | None:
    """What `save` wrote; `None` for a missing file or one that makes no sense."""
    try:
        found = json.loads(path.read_text())
        return Ports(**{key: int(value) for key, value in found.items()})
    except (FileNotFoundError, ValueError, TypeError, AttributeError):
        return None


def save(path: Path, ports: Ports) -> None:
    """Atomically: a crash leaves the old file or the new one."""
    draft = path.with_suffix(".new")
    draft.write_text(json.dumps(asdict(ports)) + "\n")
    draft.replace(path)
