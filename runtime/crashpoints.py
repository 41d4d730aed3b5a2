"""Named places where a test may end the process with SIGKILL, to show what a crash exactly there does.

Armed by a file named in `TRIGGERS_CRASH_FILE`, read once at start, holding `<name>` or `<name>:<n>` (die at the n-th time the place is
reached). The file is removed just before the kill, so a place fires once. Without the variable a call costs one comparison.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

#: Whether any place is: what an event passes asks this before it calls.
armed = False
_name: str | None = None
_remaining = 0
_file: Path | None = None


def arm_from_environment() -> None:
    """Called by the composition root at process start. A missing file leaves every place unarmed."""
    global armed, _name, _remaining, _file
    path = os.environ.get("TRIGGERS_CRASH_FILE")
    if not path or not Path(path).is_file():
        return
    name, _, count = Path(path).read_text().strip().partition(":")
    armed, _name, _remaining, _file = True, name, int(count or 1), Path(path)


def reach(name: str) -> None:
    """Die here if this place is armed and its count is used up."""
    global _remaining  # noqa: PLW0603
    if _name is None or name != _name:
        return
    _remaining -= 1
    if _remaining == 0:
        if _file is not None:
            _file.unlink(missing_ok=True)
        os.kill(os.getpid(), signal.SIGKILL)
