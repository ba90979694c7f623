"""Pure: what is counted at the wire of the embedded AWS, by caller."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

AGENT_TOKEN = "engagement-scoring/"  # noqa: S105 - a product name, no secret
"""Product token in the User-Agent of this service's own clients."""
OURS = "worker"
"""Requests whose User-Agent has AGENT_TOKEN."""
OTHERS = "other"
"""All other requests: the demo's traffic, tests, a shell."""
MAX_OPERATIONS = 200
"""Operations counted separately per caller; later ones are counted as `other.Other`."""


def caller_of(user_agent: str) -> str:
    """OURS or OTHERS, by the User-Agent header."""
    return OURS if AGENT_TOKEN in user_agent else OTHERS


@dataclass(slots=True)
class OperationTally:
    """What one operation was asked for."""

    requests: int = 0
    members: int = 0
    """Items, statements or records in those requests."""
    write_units: int = 0
    """DynamoDB write units: 1 per write and started KiB, 2 in a transaction; index writes are not counted."""
    failed: int = 0
    """Requests answered with a status of 400 or more; failures inside a batch answer are not in here."""

    def minus(self, earlier: OperationTally) -> OperationTally:
        """What came after `earlier`."""
        return OperationTally(
            self.requests - earlier.requests,
            self.members - earlier.members,
            self.write_units - earlier.write_units,
            self.failed - earlier.failed,
        )


@dataclass(slots=True)
class Tally:
    """Counts by operation (`dynamodb.BatchExecuteStatement`, `pinpoint.GetEndpoint`)."""

    operations: dict[str, OperationTally] = field(default_factory=dict)

    def add(self, operation: str, *, members: int = 1, write_units: int = 0, failed: bool = False) -> None:
        """Count one request."""
        if operation not in self.operations and len(self.operations) >= MAX_OPERATIONS:
            operation = "other.Other"
        tally = self.operations.setdefault(operation, OperationTally())
        tally.requests += 1
        tally.members += members
        tally.write_units += write_units
        tally.failed += failed

    def as_json(self) -> dict[str, dict[str, int]]:
        """Plain values for a JSON body; `from_json` reads it back."""
        return {
            name: {"requests": t.requests, "members": t.members, "write_units": t.write_units, "failed": t.failed}
            for name, t in sorted(self.operations.items())
        }

    @classmethod
    def from_json(cls, document: dict[str, dict[str, Any]]) -> Tally:
        """The tally that `as_json` wrote."""
        return cls({name: OperationTally(**counts) for name, counts in document.items()})
