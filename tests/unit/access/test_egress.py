"""RELIABILITY 4.6, rows 61 to 65 and 69, as they come in at registration. Every attempt asks the same function."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from pydantic import ValidationError

from access.egress import Rules, check_url, own_refusal, read_url, refusal, rules
from runtime.settings import ApiSettings, DeliverySettings, Settings, TelemetrySettings

RULES = Rules()


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com",
        "https://example.com:8443/hooks/1?token=a%2Fb&x=@y:1",
        "HTTPS://Example.com:443/",
        "https://xn--9ca.com/",
        "https://é.com/ü",
        "https://a_b.example/",
        "https://localhost.example.com/",
        "https://internal.example/",
        "https://0x.example/",
        "https://8.8.8.8/",
        "https://[2606:4700::1111]/",
        "https://[64:ff9b::808:808]/",  # 8.8.8.8 through a translator
        "https://example.com/" + "x" * (2_048 - len("https://example.com/")),
    ],
)
def test_a_public_https_url_is_kept_as_it_was_given(url: str) -> None:
    assert check_url(url, RULES) == url


@pytest.mark.parametrize(
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
        ("https://example.com/#part", "fragment"),
        ("https://example.com#@127.0.0.1/", "fragment"),
        ("https://good.example\\@evil.example/", "cannot be read"),
        ("https://example.com:65536/", "cannot be read"),
        ("https://example.com:-1/", "cannot be read"),
        ("https://example.com:x/", "cannot be read"),
        ("https://[::1/", "cannot be read"),
        ("https://xn--/", "cannot be read"),
        ("https://example.com:0/", "port 0"),
        ("https://[fe80::1%25eth0]/", "without %"),
        ("https://[fe80::1%eth0]/", "without %"),
        ("https://%31%32%37.0.0.1/", "without %"),
        ("https://example.com%00/", "without %"),
        ("https://exam ple.com/", "no spaces"),
        (" https://example.com/", "no spaces"),
        ("https://example.com/\r\nX-Evil: 1", "no spaces"),
        ("https://example.com/\x00", "no spaces"),
        ("https://example.com/\u202e", "no spaces"),
        ("https://example.com/" + "x" * 2_048, "no spaces"),
        ("https://exa$mple.com/", "plain name"),
        ("https://a..b/", "plain name"),
        ("https://.example.com/", "plain name"),
        ("https://-a.example.com/", "plain name"),
        ("https://" + "a" * 64 + ".com/", "plain name"),
        ("https://" + "a." * 126 + "com/", "plain name"),
        ("https://[v1.x]/", "IPv6 address"),
    ],
)
def test_a_url_that_is_not_plain_https_is_refused_and_the_reason_told(url: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        check_url(url, RULES)


@pytest.mark.parametrize(
    "host",
    [
        "localhost", "LOCALHOST", "foo.localhost", "metadata.google.internal", "a.internal", "internal", "printer.local", "kafka",
        "triggers-api",
        "x.svc.cluster.local", "router.lan", "a.home.arpa", "x.onion", "localhost.localdomain",
    ],
)  # fmt: skip
def test_a_name_of_a_local_network_is_refused(host: str) -> None:
    with pytest.raises(ValueError, match="local network"):
        check_url(f"https://{host}/", RULES)


@pytest.mark.parametrize("host", ["localhost.", "example.com.", "127.0.0.1.", "a.internal.", "localhost\u3002"])
def test_a_name_that_ends_with_a_dot_is_refused(host: str) -> None:
    with pytest.raises(ValueError, match="end with a dot"):
        check_url(f"https://{host}/", RULES)


FORBIDDEN = [
    # Row 62 and 63.
    "127.0.0.1", "127.255.255.254", "0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "172.16.0.1", "172.31.255.255", "192.168.0.1",
    "100.64.0.1", "100.100.100.200", "100.127.255.255", "169.254.169.254", "168.63.129.16", "192.0.0.8", "192.0.0.192", "192.88.99.1",
    "198.18.0.1", "198.19.255.255", "192.0.2.1", "198.51.100.1", "203.0.113.1", "192.31.196.1", "192.52.193.1", "192.175.48.1",
    "224.0.0.1",
    "239.255.255.255", "240.0.0.1", "255.255.255.255",
    # Row 64.
    "::1", "::", "::ffff:127.0.0.1", "::ffff:a9fe:a9fe", "::ffff:8.8.8.8", "::127.0.0.1", "::8.8.8.8", "::ffff:0:127.0.0.1",
    "::ffff:0:8.8.8.8",
    "64:ff9b::a9fe:a9fe", "64:ff9b::127.0.0.1", "64:ff9b::10.0.0.1", "64:ff9b:1::1", "64:ff9b:1::8.8.8.8", "64:ff9b:1:ffff::1",
    "2002:a9fe:a9fe::", "2002:7f00:1::", "2002:808:808::1", "2001::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:2::1", "2001:10::1",
    "2001:20::1", "fe80::1", "febf::1", "fc00::1", "fd00:ec2::254", "fd20:ce::254", "fec0::1", "ff02::1", "ff0e::1", "2001:db8::1",
    "3fff::1",
    "5f00::1", "100::1", "100:0:0:1::1", "2620:4f:8000::1", "4000::1", "e000::1", "64:ff9c::1",
    "2606:4700::5efe:127.0.0.1", "2606:4700::200:5efe:10.0.0.1",  # ISATAP under a public prefix
]  # fmt: skip


@pytest.mark.parametrize("address", FORBIDDEN)
def test_a_forbidden_address_is_refused_at_registration_and_when_connecting(address: str) -> None:
    host = f"[{address}]" if ":" in address else address
    with pytest.raises(ValueError, match="public addresses only"):
        check_url(f"https://{host}/", RULES)
    assert refusal(ip_address(address), RULES)


@pytest.mark.parametrize(
    "address",
    [
        "1.1.1.1", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255", "128.0.0.0", "168.63.129.15",
        "168.63.129.17",
        "169.253.255.255", "172.15.255.255", "172.32.0.0", "192.0.1.0", "192.167.255.255", "198.17.255.255", "198.20.0.0",
        "223.255.255.255",
        "2000::1", "2001:200::1", "2001:db7:ffff::1", "2001:db9::1", "2003::1", "2606:4700::1111", "3ffe:ffff::1", "64:ff9b::1.1.1.1",
        "2606:4700::5efe:8.8.8.8",
    ],
)  # fmt: skip
def test_the_neighbours_of_forbidden_networks_may_be_reached(address: str) -> None:
    assert refusal(ip_address(address), RULES) is None


@pytest.mark.parametrize(
    "host",
    [
        "2130706433", "0x7f000001", "017700000001", "0177.0.0.1", "127.1", "0", "0x7f.1", "127.0.0.0x1", "1.2.3.4.5", "127.0.0.01",
        "256.1.1.1",
        "example.0x", "example.1", "0x", "①②⑦.⓪.⓪.①", "１２７.0.0.1", "127。0。0。1", "８.８.８.８", "8。8。8。8", "١٢٧.0.0.1",
    ],
)  # fmt: skip
def test_an_address_in_any_other_writing_is_refused(host: str) -> None:
    with pytest.raises(ValueError, match=r"another writing|unusual writing|cannot be read"):
        check_url(f"https://{host}/", RULES)


def test_what_is_refused_is_what_the_client_would_connect_by() -> None:
    url = read_url("https://Ex\u00c4mple.com/a b".replace(" ", "%20"), RULES)
    assert (url.raw_host, url.port, url.raw_path) == ("xn--exmple-cua.com", 443, "/a%20b")


@pytest.mark.parametrize("port", [22, 25, 80, 4750, 5432, 6379, 8000, 9092, 65535])
def test_a_port_that_is_not_listed_is_refused_and_one_that_is_listed_is_taken(port: int) -> None:
    url = f"https://example.com:{port}/"
    with pytest.raises(ValueError, match=f"port {port} is not one"):
        check_url(url, RULES)
    assert check_url(url, RULES._replace(ports=frozenset({443, port}))) == url


def test_the_development_switch_opens_addresses_names_ports_and_http_and_nothing_else() -> None:
    insecure = Rules(insecure=True)
    for url in ("http://127.0.0.1:1/x", "https://localhost:9/", "http://[::1]:8/", "http://kafka/"):
        assert check_url(url, insecure) == url
    for url in ("ftp://example.com/", "http://user@example.com/", "http:///x", "http://example.com:0/", "http://example.com/#x"):
        with pytest.raises(ValueError, match=r"the URL|port 0"):
            check_url(url, insecure)
    assert refusal(ip_address("169.254.169.254"), insecure) is None
    assert own_refusal(ip_address("127.0.0.1"), 443, insecure) is None


def test_an_allowed_network_opens_itself_and_local_names_and_nothing_else() -> None:
    allowing = Rules(allowed=(ip_network("10.1.0.0/16"), ip_network("fd12::/16")))
    for url in ("https://10.1.2.3/", "https://[fd12::1]/", "https://hooks.internal:8443/", "https://receiver/"):
        assert check_url(url, allowing) == url
    for url in ("https://10.2.0.1/", "https://[::ffff:10.1.2.3]/", "https://127.1/", "http://10.1.2.3/", "https://10.1.2.3:22/"):
        with pytest.raises(ValueError, match=r"public addresses only|unusual writing|https://|port 22"):
            check_url(url, allowing)


def test_an_allowed_translator_opens_only_what_is_allowed_behind_it() -> None:
    allowing = Rules(allowed=(ip_network("64:ff9b:1::/96"), ip_network("2002::/16")))
    assert refusal(ip_address("64:ff9b:1::8.8.8.8"), allowing) is None
    for address in ("64:ff9b:1::169.254.169.254", "64:ff9b:1::127.0.0.1", "2002:a9fe:a9fe::1"):
        assert refusal(ip_address(address), allowing)


def test_what_is_denied_goes_before_what_is_allowed() -> None:
    both = Rules(allowed=(ip_network("10.0.0.0/8"),), denied=(ip_network("10.9.0.0/16"), ip_network("8.8.8.8/32")))
    assert refusal(ip_address("10.8.0.1"), both) is None
    for address in ("10.9.0.1", "8.8.8.8", "64:ff9b::8.8.8.8"):
        assert refusal(ip_address(address), both) == "denied by TRIGGERS_DELIVERY__EGRESS_DENIED_NETWORKS"


def test_this_host_is_no_receiver_unless_allowed_and_its_own_ports_never_are() -> None:
    here = ip_address("8.8.4.4")
    assert own_refusal(here, 443, Rules()) == "an address of this host"
    allowing = Rules(allowed=(ip_network("8.8.4.4/32"),), own_ports=frozenset({8443}))
    assert own_refusal(here, 443, allowing) is None
    assert own_refusal(here, 8443, allowing) == "a port of this product"


def test_the_settings_say_the_rules() -> None:
    settings = Settings(
        api=ApiSettings(port=8443),
        telemetry=TelemetrySettings(metrics_port=9100),
        delivery=DeliverySettings.model_validate(
            {"egress_ports": (443, 9443), "egress_allowed_networks": ("10.0.0.0/8",), "egress_denied_networks": ("2606:4700::/32",)}
        ),
    )
    assert rules(settings) == Rules(
        insecure=False,
        ports=frozenset({443, 9443}),
        allowed=(ip_network("10.0.0.0/8"),),
        denied=(ip_network("2606:4700::/32"),),
        own_ports=frozenset({8443, 9100}),
    )


@pytest.mark.parametrize(
    "values", [{"egress_ports": (0,)}, {"egress_allowed_networks": ("10.0.0.1/8",)}, {"egress_denied_networks": ("x",)}]
)
def test_settings_that_make_no_rules_are_refused_at_start(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        DeliverySettings.model_validate(values)
