"""An operator for tests, with a token of its own."""

from __future__ import annotations

import os

from access import keys, operators
from runtime.clock import SYSTEM
from runtime.postgres import connect
from runtime.settings import Settings
from schemas import ids


def make_operator(settings: Settings) -> str:
    """The token."""
    with connect(settings.postgres, application="tests") as connection:
        _, token = operators.create(
            connection, ids.operator_id(SYSTEM.now_ms(), os.urandom(ids.RANDOM_BYTES)), name="Ada",
            random=os.urandom(keys.RANDOM_BYTES), actor="test",
        )  # fmt: skip
    return token
