"""The receivers of docs/receiving.md, against webhooks that this product signs and posts: what is ours is taken once, nothing else ever."""

from __future__ import annotations

import http.client
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest
from msgspec import Raw

from access.endpoint_secrets import secret_text
from delivery import sign
from delivery.attempt import Sender
from runtime.settings import DeliverySettings, Settings
from schemas import ids, keys
from schemas.events import Ingested
from tests.snippets import LANGUAGES, SNIPPETS, prepare, running

OURS, OTHER = bytes(range(24)), bytes(range(100, 132))
EVENT = Ingested(
    v=1, id=ids.event_id(1_795_485_083_000, bytes(10)), organization=ids.organization_id(1, bytes(10)), mode="live", type="order.paid",
    received_at_ms=1_795_485_083_000, fingerprint=keys.fingerprint("order.paid", None, b"1"),
    payload=Raw('{ "amount": 20.50, "city": "Łódź 🚀", "id": 9007199254740993 }'.encode()),
)  # fmt: skip
BODY = sign.body(EVENT)
TOLERANCE_S = 300


class Running(NamedTuple):
    url: str
    inbox: Path

    def kept(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.inbox.iterdir()}


@pytest.fixture(scope="module", params=LANGUAGES)
def command(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return prepare(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture
def receiver(command: list[str], tmp_path: Path) -> Iterator[Running]:
    with running(command, secret_text(OURS), tmp_path / "inbox") as url:
        yield Running(url, tmp_path / "inbox")


def signed(*secrets: bytes, at_s: float | None = None, event_id: ids.EventId = EVENT.id) -> dict[str, str]:
    made = sign.headers(event_id, int(time.time() if at_s is None else at_s), BODY, secrets)
    return {"Content-Type": "application/json", **made}


def post(url: str, headers: Mapping[str, str], body: bytes = BODY) -> int:
    """As it is told, whatever that is."""
    target = urlsplit(url)
    with closing(http.client.HTTPConnection(target.hostname or "", target.port, timeout=20)) as connection:
        connection.request("POST", "/", body, dict(headers))
        return connection.getresponse().status


async def test_what_this_product_posts_is_taken_once_however_often_it_comes(receiver: Running) -> None:
    async with Sender(Settings(delivery=DeliverySettings(allow_insecure_endpoints=True))) as sender:
        for _ in range(3):  # each attempt is signed anew; the id stays
            assert (await sender.post(receiver.url, BODY, signed(OURS))).status == 204
    assert receiver.kept() == {EVENT.id: BODY}


def test_during_a_rotation_either_secret_will_do(receiver: Running) -> None:
    later = [ids.event_id(number, bytes(10)) for number in (2, 3)]
    assert post(receiver.url, signed(OTHER, OURS, event_id=later[0])) == 204
    assert post(receiver.url, signed(OURS, OTHER, event_id=later[1])) == 204
    assert post(receiver.url, signed(OTHER)) == 400
    assert set(receiver.kept()) == set(later)


def test_what_was_changed_is_old_or_somebody_elses_is_refused_and_not_kept(receiver: Running) -> None:
    good, now_s = signed(OURS), time.time()
    without = [{name: value for name, value in good.items() if name != missing} for missing in good if missing.startswith("webhook-")]
    forged = [
        signed(OTHER),
        signed(OURS, at_s=now_s - TOLERANCE_S - 5),
        signed(OURS, at_s=now_s + TOLERANCE_S + 60),
        {**good, "webhook-timestamp": str(int(now_s) - 60)},
        {**good, "webhook-id": ids.event_id(9, bytes(10))},
        *without,
        *[{**good, "webhook-signature": value} for value in ("", "v1", "v1,", "v2,AAAA", "v1,***", "v1,a,b", " ", ",", "v1a,AAAA")],
        *[{**good, "webhook-timestamp": value} for value in ("", "soon", "NaN", "inf", "-1", "9" * 400)],
    ]
    assert [post(receiver.url, headers) for headers in forged] == [400] * len(forged)
    changed = [BODY[:-1], BODY + b" ", BODY.replace(b"20.50", b"20.5"), BODY.replace(b"{ ", b"{"), b"", b"\xff" + BODY[1:]]
    assert [post(receiver.url, good, body) for body in changed] == [400] * len(changed)
    assert receiver.kept() == {}
    assert post(receiver.url, good) == 204
    assert receiver.kept() == {EVENT.id: BODY}


def test_a_body_that_no_webhook_of_ours_has_is_refused_unread(receiver: Running) -> None:
    with suppress(ConnectionError):  # it need not wait for the rest
        assert post(receiver.url, signed(OURS), bytes(4_000_000)) == 413
    assert receiver.kept() == {}


def test_what_the_page_signs_by_hand_is_taken(receiver: Running) -> None:
    if missing := [name for name in ("sh", "curl", "openssl", "od") if shutil.which(name) is None]:
        pytest.skip(f"there is no {', '.join(missing)} here")
    ran = subprocess.run(
        ["sh", str(SNIPPETS / "send.sh"), receiver.url],
        env={"PATH": "/usr/bin:/bin", "WEBHOOK_SECRET": secret_text(OURS)}, capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "204\n", "")
    assert set(receiver.kept()) == {"evt_by_hand"}


def test_the_page_shows_what_is_run_here() -> None:
    page = (SNIPPETS.parent / "receiving.md").read_text()
    shown = re.findall(r"^```(?:python|js|go|go\.mod|shell)\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    assert sorted(shown) == sorted(path.read_text() for path in SNIPPETS.iterdir())
