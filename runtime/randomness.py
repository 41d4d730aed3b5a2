"""Random bytes of the operating system, asked for in blocks: a system call for each event's few bytes costs more than they do."""

from __future__ import annotations

import os
from typing import Final

_BLOCK_BYTES: Final = 4_096


class Randomness:
    """Bytes of `os.urandom`, each handed out once. For one thread of one process: a forked copy would hand out the same again."""

    def __init__(self) -> None:
        self._block = b""
        self._at = 0

    def take(self, count: int) -> bytes:
        """`count` bytes, at most 4,096."""
        end = self._at + count
        if end > len(self._block):
            self._block, self._at, end = os.urandom(_BLOCK_BYTES), 0, count
        taken = self._block[self._at : end]
        self._at = end
        return taken
