"""Which addresses a webhook may be sent to. Pure.

Refused, whatever a name resolves to: link-local addresses, where clouds keep the metadata and credentials of machines
and tasks (169.254.169.254, 169.254.170.2, fe80::/10), the metadata addresses outside of them (fd00:ec2::254 of EC2,
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html; 100.100.100.200 of Alibaba Cloud),
unspecified and multicast addresses, and this machine, unless the URL says so itself. Private addresses are allowed: a
receiver may be in the same network.
"""

from __future__ import annotations

import ipaddress
from urllib.parse import SplitResult, urlsplit

LOOPBACK_NAMES = frozenset({"localhost"})

_METADATA = frozenset(map(ipaddress.ip_address, ("fd00:ec2::254", "fd00:ec2::23", "100.100.100.200")))
_NAT64 = ipaddress.ip_network("64:ff9b::/96")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def url_fault(url: str) -> str:
    """Return what is wrong with a webhook's URL, without a part of it; empty: nothing."""
    if not url:
        return "is not set"
    parts = _split(url)
    if parts is None or not parts.hostname:
        return "is not a URL with a host"
    if parts.username is not None or parts.password is not None:
        return "has a user or password in it, which would end up in logs"
    loopback = is_loopback_host(parts.hostname)
    if parts.scheme != "https" and not (parts.scheme == "http" and loopback):
        return "is not an https:// URL"
    address = _literal(parts.hostname)
    return address_fault(address, loopback_allowed=loopback) if address is not None else ""


def shown_url(url: str) -> str:
    """Return what may be shown of a URL: a path or a query may be a secret."""
    parts = _split(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}" if parts is not None and parts.hostname else "no URL"


def is_loopback_host(host: str) -> bool:
    """Return whether a URL's host names this machine."""
    address = _literal(host)
    return host.lower() in LOOPBACK_NAMES or (address is not None and address.is_loopback)


def address_fault(address: Address, *, loopback_allowed: bool) -> str:
    """Return why no request is sent to an address; empty: it may be."""
    inner = _inner(address)
    if inner in _METADATA or inner.is_link_local:
        return "is a link-local or metadata address"
    if inner.is_unspecified or inner.is_multicast:
        return "is not the address of one machine"
    if inner.is_loopback and not loopback_allowed:
        return "is an address of this machine, under another name"
    return ""


def _inner(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 address stands for, where it does."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    mapped = address.ipv4_mapped or address.sixtofour
    if mapped is not None:
        return mapped
    return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF) if address in _NAT64 else address


def _literal(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return None
    return parts
