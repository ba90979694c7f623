"""Whether an endpoint is AWS's own. Pure."""

from __future__ import annotations

from urllib.parse import urlsplit

AWS_DOMAINS = (".amazonaws.com", ".amazonaws.com.cn", ".api.aws", ".api.amazonwebservices.com.cn")
"""Domains of AWS's endpoints, including those of VPC endpoints
(botocore/data/partitions.json: dnsSuffix, dualStackDnsSuffix)."""


def is_aws(url: str) -> bool:
    """Return whether a URL belongs to AWS; otherwise it is an emulator or a proxy."""
    return (urlsplit(url).hostname or "").endswith(AWS_DOMAINS)
