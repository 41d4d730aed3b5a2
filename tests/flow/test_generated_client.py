"""A client that nobody wrote: generated from docs/openapi.json, it posts, reads and acknowledges on the running system."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from tests.contract_document import PATH
from triggers.provision import make_tenant
from triggers.system import System, until

#: No formatter runs afterwards. The generator knows no media type of lines; its client sends them as bytes.
_CONFIG = "post_hooks: []\ncontent_type_overrides:\n  application/x-ndjson: application/octet-stream\n"
_PACKAGE = "generated_triggers_client"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    config = tmp_path / "config.yml"
    config.write_text(_CONFIG)
    program = Path(sys.executable).with_name("openapi-python-client")
    arguments: list[str | Path]
    arguments = ["--path", PATH, "--config", config, "--meta", "none", "--output-path", tmp_path / _PACKAGE, "--fail-on-warning"]
    made = subprocess.run([program, "generate", *arguments], capture_output=True, text=True, check=False, timeout=120)
    assert made.returncode == 0, f"the client does not come out whole: {made.stdout[-3000:]}"
    monkeypatch.syspath_prepend(tmp_path)
    yield _PACKAGE
    for name in [name for name in sys.modules if name.partition(".")[0] == _PACKAGE]:
        del sys.modules[name]


@pytest.fixture
def open_clients() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


def test_it_posts_reads_and_acknowledges(package: str, system: System, open_clients: ExitStack) -> None:
    def api(name: str) -> Any:
        return import_module(f"{package}.api.{name}")

    def client_of(key: str) -> Any:
        made = import_module(package).AuthenticatedClient(system.url, token=key, auth_header_name="X-API-Key", prefix="")
        return open_clients.enter_context(made)

    models: Any = import_module(f"{package}.models")
    tenant = make_tenant(system.settings, "generated client")
    client = client_of(tenant.key)

    event = models.Event(type_="order.paid", payload={"order": 17}, idempotency_key="order-17-paid", subject="order/17")
    created = api("events.post_event").sync(client=client, body=event)
    assert isinstance(created, models.Created)
    assert created.idempotency_window_s == 86_400

    again = api("events.post_event").sync_detailed(client=client, body=event)
    assert (again.status_code, again.parsed.type_, again.parsed.id) == (409, "urn:triggers:problem:duplicate-event", created.id)

    cloudevent = models.CloudEvent(specversion="1.0", id="18", source="https://shop.example/orders", type_="order.paid", data={"order": 18})
    second = api("events.post_event").sync(client=client, body=cloudevent)
    third = api("events.post_event").sync(client=client, body=models.Event(type_="order.shipped", payload=None))

    def state(event_id: str) -> Any:
        return api("inbox.get_event").sync(event_id, client=client)

    wanted = [created.id, second.id, third.id]
    for event_id in wanted:
        until(lambda one=event_id: state(one).status == "accepted", 30, "the event", 0.2)  # type: ignore[misc]
    page = api("inbox.read_inbox").sync(client=client, limit=2)
    rest = api("inbox.read_inbox").sync(client=client, cursor=page.next_cursor)
    read = [*page.events, *rest.events]
    assert [one.id for one in read] == wanted
    assert [one.payload for one in read] == [{"order": 17}, {"order": 18}, None]
    assert page.has_more
    assert not rest.has_more
    assert read[1].cloudevent["source"] == "https://shop.example/orders"

    acked = api("inbox.acknowledge").sync(client=client, body=models.Acknowledge(ids=wanted))
    assert (acked.acknowledged, acked.failed) == (3, 0)
    assert api("inbox.read_inbox").sync(client=client).events == []
    assert state(created.id).ack is not None

    stranger = client_of("zap_live_wrong")
    refused = api("inbox.read_inbox").sync_detailed(client=stranger)
    assert (refused.status_code, refused.parsed.type_) == (401, "urn:triggers:problem:invalid-api-key")
