"""RELIABILITY 4.6, rows 70 and 71: whom a webhook is told to, certificates decide, and nothing in the environment does."""

from __future__ import annotations

import base64
import datetime as dt
import ssl
from collections.abc import Sequence
from pathlib import Path

import pytest

from delivery.attempt import Result, Sender
from delivery.egress import tls_context
from tests.contract.egress.certificates import Pair, authority, certificate, signed_with_sha1
from tests.contract.egress.receivers import OK, Receiver, openssl_receiver, receiver, says, settings

DELIVERED = Result(200, None, b"ok")
TLS = Result(None, "tls", b"")
NAME = "hooks.example.com"


@pytest.fixture(scope="module")
def ca() -> Pair:
    return authority()


@pytest.fixture
def ca_file(ca: Pair, tmp_path: Path) -> Path:
    file = tmp_path / "ca.pem"
    file.write_bytes(ca.pem())
    return file


def loopback(_name: str) -> Sequence[str]:
    return ["127.0.0.1"]


async def attempt(made: Receiver, host: str = NAME, scheme: str = "https", **delivery: object) -> Result:
    async with Sender(settings(**delivery), loopback) as sender:
        return await sender.post(f"{scheme}://{host}:{made.port}/", b"secret", {})


async def test_a_receiver_whose_certificate_is_good_gets_its_webhook_under_its_name(ca: Pair, ca_file: Path, tmp_path: Path) -> None:
    names: list[str | None] = []
    context = certificate(NAME, ca).context(tmp_path)
    context.sni_callback = lambda _socket, name, _context: names.append(name)
    async with receiver(says(OK), tls=context) as made:
        assert await attempt(made, egress_ca_file=ca_file) == DELIVERED
    assert names == [NAME]
    assert f"\r\nhost: {NAME}:{made.port}\r\n".encode() in made.heads[0].lower()


async def test_an_address_must_be_in_the_certificate_too(ca: Pair, ca_file: Path, tmp_path: Path) -> None:
    async with receiver(says(OK), tls=certificate("127.0.0.1", ca).context(tmp_path)) as made:
        assert await attempt(made, "127.0.0.1", egress_ca_file=ca_file) == DELIVERED
    async with receiver(says(OK), tls=certificate(NAME, ca).context(tmp_path)) as made:
        assert await attempt(made, "127.0.0.1", egress_ca_file=ca_file) == TLS


def bad(ca: Pair) -> dict[str, Pair]:
    day = dt.timedelta(days=1)
    return {
        "expired": certificate(NAME, ca, not_before=-2 * day, not_after=-day / 24),
        "not valid yet": certificate(NAME, ca, not_before=day / 2),
        "another name": certificate("other.example.com", ca),
        "a wildcard of another level": certificate("*.hooks.example.com", ca),
        "self-signed": certificate(NAME, None),
        "an unknown authority": certificate(NAME, authority("Unknown CA")),
        "an authority of the same name": certificate(NAME, authority()),
    }


@pytest.mark.parametrize("what", list(bad(authority())))
async def test_a_bad_certificate_is_a_tls_error_and_nothing_is_sent(what: str, ca: Pair, ca_file: Path, tmp_path: Path) -> None:
    async with receiver(says(OK), tls=bad(ca)[what].context(tmp_path)) as made:
        assert await attempt(made, egress_ca_file=ca_file) == TLS
    assert made.heads == []


async def test_a_certificate_signed_with_sha_1_is_a_tls_error(ca: Pair, ca_file: Path, tmp_path: Path) -> None:
    try:
        context = signed_with_sha1(NAME, ca, tmp_path)
    except FileNotFoundError:
        pytest.skip("there is no openssl command, and cryptography signs nothing with SHA-1")
    async with receiver(says(OK), tls=context) as made:
        assert await attempt(made, egress_ca_file=ca_file) == TLS
    assert made.heads == []


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
async def test_tls_before_1_2_is_a_tls_error(version: ssl.TLSVersion, ca: Pair, ca_file: Path, tmp_path: Path) -> None:
    context = certificate(NAME, ca).context(tmp_path)
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    context.minimum_version = version
    context.maximum_version = version
    with openssl_receiver(context) as made:
        assert await attempt(made, egress_ca_file=ca_file) == TLS
    assert made.heads == []


@pytest.mark.parametrize(
    ("version", "errors"),
    [
        (ssl.TLSVersion.TLSv1_2, {"tls"}),
        (ssl.TLSVersion.TLSv1_3, {"tls", "reset"}),  # the refusal follows the handshake and may meet our request on its way
    ],
)
async def test_a_receiver_that_wants_a_client_certificate_gets_nothing(
    version: ssl.TLSVersion, errors: set[str], ca: Pair, ca_file: Path, tmp_path: Path
) -> None:
    context = certificate(NAME, ca).context(tmp_path)
    context.maximum_version = version
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(ca_file)
    with openssl_receiver(context) as made:
        result = await attempt(made, egress_ca_file=ca_file)
    assert result.error in errors
    assert made.heads == []


async def test_a_receiver_without_tls_is_a_tls_error_and_sees_nothing_in_clear(ca_file: Path) -> None:
    async with receiver(says(OK)) as made:
        result = await attempt(made, egress_ca_file=ca_file, attempt_timeout_s=0.5)
    assert result in {TLS, Result(None, "timeout", b"")}  # it waits for a request that never comes
    assert made.heads == []
    assert made.bodies == []


async def test_an_authority_that_only_the_environment_names_is_not_believed(
    ca: Pair, ca_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(ca_file))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    async with receiver(says(OK), tls=certificate(NAME, ca).context(tmp_path)) as made:
        assert await attempt(made) == TLS
    assert tls_context(None).cert_store_stats()["x509_ca"] > 1, "the system's own"


async def test_proxies_credentials_and_cookies_of_the_environment_are_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".netrc").write_text(f"machine {NAME} login ada password s3cret\ndefault login ada password s3cret\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    async with receiver(says(OK)) as proxy, receiver(says(OK)) as made:
        for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://ada:{base64.b64encode(b's3cret').decode()}@127.0.0.1:{proxy.port}")
        assert await attempt(made, scheme="http") == DELIVERED
    assert (proxy.connections, made.connections) == (0, 1)
    assert b"authorization" not in made.heads[0].lower()
    assert b"s3cret" not in made.heads[0]


def test_without_certificate_authorities_the_worker_does_not_start(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        Sender(settings(egress_ca_file=tmp_path / "none.pem"))
    (tmp_path / "empty.pem").write_text("nothing")
    with pytest.raises(OSError, match="no certificate"):
        Sender(settings(egress_ca_file=tmp_path / "empty.pem"))
