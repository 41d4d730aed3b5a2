from __future__ import annotations

import resource
from typing import Any

import pytest
from pydantic import ValidationError

from ingest.server import configured, room_for
from runtime.settings import ApiSettings


class Seen:
    """An application that keeps who it was asked by."""

    async def __call__(self, scope: Any, _receive: Any, _send: Any) -> None:
        self.asked = (scope["client"][0], scope["scheme"])


async def seen_through(settings: ApiSettings, peer: str, *forwarded_for: bytes) -> tuple[str, str]:
    app: Any = Seen()
    config = configured(app, settings, "httptools")
    config.load()
    headers = [(b"x-forwarded-proto", b"https"), *((b"x-forwarded-for", value) for value in forwarded_for)]
    scope: Any = {"type": "http", "client": (peer, 1), "scheme": "http", "headers": headers}
    served: Any = config.loaded_app
    await served(scope, None, None)
    asked: tuple[str, str] = app.asked
    return asked


@pytest.mark.parametrize("peer", ["127.0.0.1", "::1", "10.0.0.1"])
async def test_nobody_is_believed_about_who_sent_a_request(peer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "*")
    assert await seen_through(ApiSettings(), peer, b"203.0.113.9") == (peer, "http")


async def test_a_named_proxy_is_believed_and_nobody_behind_it() -> None:
    settings = ApiSettings.model_validate({"trusted_proxies": ["10.0.0.0/8", "127.0.0.1"]})
    assert await seen_through(settings, "10.9.9.9", b"203.0.113.9") == ("203.0.113.9", "https")
    assert await seen_through(settings, "10.9.9.9", b"1.1.1.1, 203.0.113.9, 10.1.1.1") == ("203.0.113.9", "https")
    assert await seen_through(settings, "10.9.9.9", b"1.1.1.1", b"203.0.113.9") == ("203.0.113.9", "https")
    assert await seen_through(settings, "192.0.2.1", b"203.0.113.9") == ("192.0.2.1", "http")


def test_a_proxy_that_is_no_network_is_refused_at_start() -> None:
    with pytest.raises(ValidationError):
        ApiSettings.model_validate({"trusted_proxies": ["everybody"]})


@pytest.mark.parametrize(
    ("soft", "hard", "room", "raised"),
    [
        (1_024, 1_024, 768, None),
        (1_024, 4_096, 3_840, 4_096),
        (1_024, 20_000, 10_000, 10_256),
        (20_000, 20_000, 10_000, None),
        (100, 100, 1, None),
        (1_024, resource.RLIM_INFINITY, 10_000, 10_256),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, 10_000, None),
    ],
)
def test_connections_leave_room_for_other_files(
    soft: int, hard: int, room: int, raised: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_to: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: set_to.append(limits))
    assert room_for(10_000) == room
    assert [limits[0] for limits in set_to if limits[0] != soft] == ([] if raised is None else [raised])
