from __future__ import annotations

import ipaddress

import pytest

from service.sinks.webhook.address import address_fault, is_loopback_host, shown_url, url_fault

METADATA = [
    "169.254.169.254",
    "169.254.170.2",
    "fe80::1",
    "fd00:ec2::254",
    "100.100.100.200",
    "::ffff:169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "2002:a9fe:a9fe::1",
]


@pytest.mark.parametrize("text", METADATA)
def test_metadata_is_refused_in_every_form_that_an_address_has(text: str):
    for loopback_allowed in (True, False):
        fault = address_fault(ipaddress.ip_address(text), loopback_allowed=loopback_allowed)
        assert fault == "is a link-local or metadata address"


@pytest.mark.parametrize("text", ["127.0.0.1", "::1", "::ffff:127.0.0.1", "127.9.9.9"])
def test_this_machine_is_refused_unless_the_url_says_so(text: str):
    assert address_fault(ipaddress.ip_address(text), loopback_allowed=False)
    assert not address_fault(ipaddress.ip_address(text), loopback_allowed=True)


@pytest.mark.parametrize("text", ["0.0.0.0", "::", "224.0.0.1", "ff02::1"])  # noqa: S104 - to be refused
def test_an_address_of_no_single_machine_is_refused(text: str):
    assert address_fault(ipaddress.ip_address(text), loopback_allowed=True)


@pytest.mark.parametrize("text", ["10.0.0.5", "192.168.1.1", "8.8.8.8", "2001:4860:4860::8888"])
def test_other_addresses_are_allowed(text: str):
    assert not address_fault(ipaddress.ip_address(text), loopback_allowed=False)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "hook",
        "https://",
        "http://example.com/hook",
        "ftp://example.com",
        "https://user:pass@example.com/",
        "https://169.254.169.254/latest",
        "https://[fd00:ec2::254]/",
        "https://[::ffff:169.254.169.254]/",
        "http://0.0.0.0/",
        "https://example.com:99999/",
        "https://[bad/",
    ],
)
def test_a_url_that_cannot_be_used_is_explained_without_being_shown(url: str):
    fault = url_fault(url)
    assert fault
    assert not url or url not in fault


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/hook?key=1",
        "http://127.0.0.1:8080/",
        "http://localhost/x",
        "https://[::1]/",
        "https://10.0.0.1/",
    ],
)
def test_a_url_that_can_be_used(url: str):
    assert url_fault(url) == ""


def test_only_scheme_and_host_of_a_url_are_shown():
    assert shown_url("https://example.com:8443/hook/secret?key=hunter2") == "https://example.com:8443"
    assert shown_url("https://me:hunter2@example.com/") == "https://example.com"
    assert shown_url("nonsense") == "no URL"


def test_which_hosts_are_this_machine():
    assert is_loopback_host("LOCALHOST")
    assert is_loopback_host("127.0.0.1")
    assert not is_loopback_host("localhost.example.com")
