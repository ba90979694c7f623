"""Whether an endpoint is AWS's own. Pure."""

from __future__ import annotations

from urllib.parse import urlsplit

AWS_DOMAINS = (".amazonaws.com", ".amazonaws.com.cn", ".api.aws", ".api.amazonwebservices.com.cn")
"""Last parts of the names of AWS's endpoints, those of VPC endpoints included
(botocore/data/partitions.json: dnsSuffix, dualStackDnsSuffix)."""


def is_aws(url: str) -> bool:
    """Return whether a URL leads to AWS. Anything else is an emulator, or a proxy in front of one or of AWS."""
    return (urlsplit(url).hostname or "").endswith(AWS_DOMAINS)
