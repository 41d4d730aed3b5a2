"""Placeholder until the catalogue is merged."""

from __future__ import annotations


class Validators:
    def check(self, event_type: str, payload: bytes) -> None: ...


class Catalogue:
    def known(self, organization: str, mode: str) -> Validators | None:
        return Validators()

    async def validators(self, organization: str, mode: str) -> Validators:
        return Validators()
