"""The published contract as a file: what /openapi.json answers, made without any server."""

from __future__ import annotations

import asyncio
import base64
import os

from access.openapi_document import text
from runtime.settings import Settings
from triggers.api import make_api


def contract() -> str:
    """The OpenAPI document of this program, as it is checked in. No setting changes it; nothing is connected to."""
    throwaway = base64.b64encode(os.urandom(32)).decode()

    async def made() -> str:
        return text(make_api(Settings(master_keys=f"contract:{throwaway}")).contract())

    return asyncio.run(made())
