"""How long `make run` takes to its first delivered event when everything is set up: `triggers dev --samples` on a state that was there
before. Median of several starts. Run: `make bench BENCH=start` or `python -m benchmarks.start [starts]`."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.results import Figure, middle, report
from triggers.system import argv, until

_AIM_S = 15.0
_TIMEOUT_S = 180.0


def main(starts: int) -> None:
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        cold_s, *warm_s = [first_delivery_s(Path(folder)) for _ in range(1 + starts)]
    figures = [
        Figure("first start, jars there", cold_s, "s"),
        Figure("warm start", middle(warm_s), "s", "aim", _AIM_S, 1, less_is_better=True),
    ]
    report("start", figures, f"{starts} warm starts: {', '.join(f'{one:.1f}' for one in warm_s)} s")


def first_delivery_s(folder: Path) -> float:
    out = folder / "out"
    began_s = time.monotonic()
    with out.open("wb") as stream:
        command = argv("dev", "--samples", "--port", "0", "--state", str(folder / "state"))
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
    try:
        until(lambda: "delivered" in out.read_text(), _TIMEOUT_S, "the first delivered event", 0.05)
        return time.monotonic() - began_s
    finally:
        process.terminate()
        process.wait(60)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
