from __future__ import annotations

import pytest

from access.endpoint_headers import check_headers


def test_headers_a_receiver_may_ask_for_are_taken() -> None:
    check_headers({})
    check_headers({"Authorization": "Bearer a.b-c=", "X-Tenant": "a b", "x_y!#$%&'*+.^`|~1": "~", "Cookie": "a=b", "X-Empty": ""})
    check_headers({f"X-{number}": "v" * 4_096 for number in range(20)})


@pytest.mark.parametrize(
    "name",
    [
        "Host", "Content-Length", "Transfer-Encoding", "Connection", "TE", "Upgrade", "Content-Type", "User-Agent", "webhook-id",
        "Webhook-Signature", "webhook-anything", "traceparent", "X-Request-Id", "content-length", "Accept-Encoding", "Expect", "Trailer",
    ],
)  # fmt: skip
def test_what_the_sender_says_of_itself_and_the_message_is_not_for_others_to_say(name: str) -> None:
    with pytest.raises(ValueError, match=f"the header {name} is set by the sender"):
        check_headers({name: "x"})


@pytest.mark.parametrize("name", ["", " ", "X Y", "X:", "X\r\nY", "é", "X\0", "x" * 129, "(X)"])
def test_what_is_no_token_is_no_name(name: str) -> None:
    with pytest.raises(ValueError, match="a header's name must be"):
        check_headers({name: "x"})


@pytest.mark.parametrize("value", ["a\r\nX-Evil: 1", "a\nb", "a\0", "a\tb", "é", " a", "a ", "\x7f", "x" * 4_097])
def test_a_value_is_one_line_of_printable_ascii(value: str) -> None:
    with pytest.raises(ValueError, match="the value of the header X must be") as raised:
        check_headers({"X": value})
    assert value.strip() not in str(raised.value).split()


def test_a_name_twice_and_too_many_are_refused() -> None:
    with pytest.raises(ValueError, match="x-a is there twice"):
        check_headers({"X-A": "1", "x-a": "2"})
    with pytest.raises(ValueError, match="may have 20 headers"):
        check_headers({f"X-{number}": "1" for number in range(21)})
