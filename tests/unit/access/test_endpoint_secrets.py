from __future__ import annotations

import base64

import pytest
from standardwebhooks import Webhook

from access.endpoint_secrets import parse_secret, secret_text


@pytest.mark.parametrize("size", [24, 25, 26, 32, 64])
def test_a_secret_that_is_brought_along_is_read_as_the_official_library_reads_it(size: int) -> None:
    secret = bytes(range(100, 100 + size))
    assert secret_text(secret) == "whsec_" + base64.b64encode(secret).decode()
    assert parse_secret(secret_text(secret)) == secret == Webhook(secret_text(secret))._whsecret


@pytest.mark.parametrize(
    "text",
    [
        "",
        "whsec_",
        base64.b64encode(bytes(24)).decode(),
        secret_text(bytes(23)),
        secret_text(bytes(65)),
        secret_text(bytes(25)).rstrip("="),
        secret_text(bytes(24)) + "\n",
        "whsec_" + secret_text(bytes(24)),
        secret_text(b"\xfb" * 24).replace("+", "-"),
        "whsec_" + "é" * 32,
        "whsec_" + "A" * 33 + "B==",
        "whsk_" + base64.b64encode(bytes(32)).decode(),
    ],
)
def test_what_is_no_secret_is_refused_without_being_repeated(text: str) -> None:
    with pytest.raises(ValueError, match=r"a secret is whsec_ and the base64 of 24 to 64 bytes") as raised:
        parse_secret(text)
    assert len(text) < 10 or text not in str(raised.value)
