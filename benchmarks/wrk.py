"""wrk (Debian's package `wrk`) as a load generator that is not ours, to confirm what ours says of a server's most. Closed model."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from benchmarks.load import Load

_SCRIPT = Path(__file__).with_name("wrk.lua")


def found() -> bool:
    return shutil.which("wrk") is not None


def per_s(load: Load) -> float:
    """Events a second that were answered with a 2xx. Raises `RuntimeError` when any was not."""
    ran = subprocess.run(_argv(load), capture_output=True, text=True, check=True)
    told = json.loads(ran.stdout.splitlines()[-1])
    if told["refused"] or told["lost"]:
        raise RuntimeError(f"wrk: {told['refused']} refused, {told['lost']} lost of {told['requests']}")
    return float(told["requests"]) / float(told["seconds"])


def _argv(load: Load) -> Sequence[str]:
    url = f"http://127.0.0.1:{load.port}"
    seconds = str(max(1, round(load.seconds)))
    options = ["--threads", "1", "--connections", str(load.connections), "--duration", seconds, "--timeout", "10", "--script", str(_SCRIPT)]
    return ["wrk", *options, url, "--", str(load.event_bytes), load.run, *load.keys]
