"""Pure: how many requests per second each operation may answer. Passes `now`, in seconds of any monotonic clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

ANY = "*"
"""The rate of every operation that is not named."""
UNLIMITED: Mapping[str, float] = {}
AWS_DEFAULT: Mapping[str, float] = {
    "DeleteEndpoint": 5,
    "GetEndpoint": 10,
    "UpdateEndpoint": 10,
    "UpdateEndpointsBatch": 2,
    ANY: 300,
}
"""Default quotas per second: https://docs.aws.amazon.com/pinpoint/latest/developerguide/quotas.html (API requests)."""


def parse_quotas(text: str) -> Mapping[str, float]:
    """`none`, `aws`, or `Operation=per_second,...` with `*` for the rest.

    Raises:
        ValueError: The text is none of these, or a rate is not above 0.
    """
    if text in {"", "none"}:
        return UNLIMITED
    if text == "aws":
        return AWS_DEFAULT
    quotas: dict[str, float] = {}
    for part in text.split(","):
        operation, equals, rate = part.partition("=")
        try:
            quotas[operation.strip()] = float(rate)
        except ValueError:
            equals = ""
        if not equals or not operation.strip() or quotas[operation.strip()] <= 0:
            raise ValueError(f"quotas {text!r}: write none, aws, or Operation=requests_per_second,... (part {part!r})")
    return quotas


@dataclass(slots=True)
class TokenBucket:
    """`rate` tokens per second, at most `burst` at once; AWS's default burst equals the rate."""

    rate: float
    burst: float
    tokens: float
    at: float

    def take(self, now: float) -> bool:
        """Take one token at `now` (seconds); False when there is none."""
        self.tokens = min(self.burst, self.tokens + max(0.0, now - self.at) * self.rate)
        self.at = max(self.at, now)
        if self.tokens < 1.0:
            return False
        self.tokens -= 1.0
        return True


@dataclass(slots=True)
class Throttle:
    """A bucket per operation; there are no more of them than operations."""

    quotas: Mapping[str, float] = field(default_factory=dict)
    _buckets: dict[str, TokenBucket] = field(default_factory=dict)

    def admits(self, operation: str, now: float) -> bool:
        """Whether a request of `operation` at `now` (seconds) is within its quota."""
        rate = self.quotas.get(operation, self.quotas.get(ANY))
        if rate is None:
            return True
        burst = max(1.0, rate)
        return self._buckets.setdefault(operation, TokenBucket(rate, burst, burst, now)).take(now)
