"""What ids are made of, so that those of one process sort in the order they were made, within one millisecond too."""

from __future__ import annotations

import os
from itertools import count

from runtime.clock import SYSTEM
from schemas import ids

_milliseconds = count(SYSTEM.now_ms())


def random_id() -> tuple[int, bytes]:
    """Milliseconds that only grow, and random bytes: the arguments of `schemas.ids`' makers. About now, not now."""
    return next(_milliseconds), os.urandom(ids.RANDOM_BYTES)
