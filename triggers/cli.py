"""The whole command line: `triggers <command>`, for what looks at all of it."""

from __future__ import annotations

from typing import Final

from triggers.main import app_for

app: Final = app_for(None)
