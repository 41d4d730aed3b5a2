"""Choices that several commands take."""

from __future__ import annotations

from enum import StrEnum

from schemas.events import Mode


class Modes(StrEnum):
    live = "live"
    test = "test"

    @property
    def mode(self) -> Mode:
        return "live" if self is Modes.live else "test"


class Plans(StrEnum):
    free = "free"
    starter = "starter"
    pro = "pro"
    enterprise = "enterprise"
