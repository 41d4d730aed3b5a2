from __future__ import annotations

import pytest

from access.endpoint_urls import check_url


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com",
        "https://example.com:8443/hooks/1?token=a%2Fb&x=@y#part",
        "HTTPS://Example.com/",
        "https://xn--9ca.com/",
        "https://é.com/ü",
        "https://a_b.example/",
        "https://[2606:4700::1111]/",
        "https://example.com/" + "x" * (2_048 - len("https://example.com/")),
    ],
)
def test_a_https_url_is_kept_as_it_was_given(url: str) -> None:
    assert check_url(url, allow_insecure=False) == url


@pytest.mark.parametrize(
    # RELIABILITY 4.6, rows 61, 65 and 69: what a URL's form alone can tell. Addresses are judged when connecting.
    ("url", "says"),
    [
        ("http://example.com/", "https://"),
        ("ftp://example.com/", "https://"),
        ("file:///etc/passwd", "https://"),
        ("gopher://example.com/", "https://"),
        ("javascript:alert(1)", "https://"),
        ("//example.com/", "https://"),
        ("example.com", "https://"),
        ("http:169.254.169.254", "https://"),
        ("", "https://"),
        ("https:///x", "name a host"),
        ("https:example.com", "name a host"),
        ("https://", "name a host"),
        ("https://user@example.com/", "user name"),
        ("https://user:pass@example.com/", "user name"),
        ("https://:pass@example.com/", "user name"),
        ("https://@example.com/", "user name"),
        ("https://:@example.com/", "user name"),
        ("https://user@example.com?x", "user name"),
        ("https://good.example\\@evil.example/", "cannot be read"),
        ("https://example.com:65536/", "cannot be read"),
        ("https://example.com:-1/", "cannot be read"),
        ("https://example.com:x/", "cannot be read"),
        ("https://[::1/", "cannot be read"),
        ("https://xn--/", "cannot be read"),
        ("https://example.com:0/", "port 0"),
        ("https://[fe80::1%25eth0]/", "without %"),
        ("https://%31%32%37.0.0.1/", "without %"),
        ("https://example.com%00/", "without %"),
        ("https://exam ple.com/", "no spaces"),
        (" https://example.com/", "no spaces"),
        ("https://example.com/\r\nX-Evil: 1", "no spaces"),
        ("https://example.com/\x00", "no spaces"),
        ("https://example.com/\u202e", "no spaces"),
        ("https://example.com/" + "x" * 2_048, "no spaces"),
    ],
)
def test_a_url_that_is_not_plain_https_is_refused_and_the_reason_told(url: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        check_url(url, allow_insecure=False)


def test_http_is_allowed_only_where_insecure_endpoints_are_and_nothing_else_is() -> None:
    assert check_url("http://127.0.0.1:1/x", allow_insecure=True) == "http://127.0.0.1:1/x"
    for url in ("ftp://example.com/", "http://user@example.com/", "http:///x", "http://example.com:0/"):
        with pytest.raises(ValueError, match=r"the URL|port 0"):
            check_url(url, allow_insecure=True)
