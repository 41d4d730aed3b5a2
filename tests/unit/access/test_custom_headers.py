"""RELIABILITY 4.6, row 73."""

from __future__ import annotations

import pytest

from access.custom_headers import check_headers


def test_headers_of_a_customers_own_are_taken() -> None:
    check_headers({})
    check_headers({"Authorization": "Bearer abc.def", "X-Api-Key": "k\tx", "x-tenant": "~", "X_1": "a b"})
    check_headers({f"x-{number}": "v" for number in range(20)})
    check_headers({"x" * 128: "v" * 1_024})


@pytest.mark.parametrize(
    "name",
    [
        "Host", "content-length", "Content-Type", "Transfer-Encoding", "Connection", "Keep-Alive", "TE", "Trailer", "Upgrade", "Expect",
        "webhook-id", "Webhook-Signature", "webhook-timestamp", "webhook-anything", "svix-id", "Proxy-Authorization", "Proxy-Connection",
        "Cookie", "User-Agent", "Accept-Encoding", "Via", "Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-HTTP-Method-Override",
        "traceparent", "TraceState", "Sec-Fetch-Mode", "HTTP2-Settings", "X-Triggers-Attempt",
    ],
)  # fmt: skip
def test_a_header_that_is_ours_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="set by the sender"):
        check_headers({name: "x"})


@pytest.mark.parametrize("name", ["", "a b", "a:", "a\r\nb", "a\x00", "é", "a\u2028", ":authority", "a(", "x" * 129, "a\n", "\ta"])
def test_a_name_that_is_no_token_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="header's name"):
        check_headers({name: "x"})


@pytest.mark.parametrize("value", ["", " a", "a ", "\t", "a\r\nX: 1", "a\nb", "a\r", "a\x00b", "\x7f", "é", "a\u2028", "\x0b", "x" * 1_025])
def test_a_value_that_could_end_its_line_or_is_not_plain_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match="the value of header x-a"):
        check_headers({"x-a": value})


def test_a_refusal_does_not_repeat_the_value_which_may_be_a_secret() -> None:
    with pytest.raises(ValueError, match="the value of header") as refused:
        check_headers({"authorization": "Bearer s3cret\n"})
    assert "s3cret" not in str(refused.value)


def test_number_and_size_are_bounded_and_names_differ() -> None:
    with pytest.raises(ValueError, match="at most 20"):
        check_headers({f"x-{number}": "v" for number in range(21)})
    with pytest.raises(ValueError, match="4096 characters together"):
        check_headers({f"x-{number}": "v" * 1_023 for number in range(4)})
    with pytest.raises(ValueError, match="upper and lower case"):
        check_headers({"X-A": "1", "x-a": "2"})
