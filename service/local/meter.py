"""What this service's own requests came to, counted at the wire of the embedded AWS and of the Pinpoint fake."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from service.local.ministack_meter import METER_PATH
from service.local.request_counts import OURS, OperationTally, Tally

ANSWER_TIMEOUT_S = 10.0


class HasEndpoint(Protocol):
    """An `Emulator`, a `PinpointProcess`: something that serves on a URL."""

    @property
    def endpoint_url(self) -> str:
        """Its base URL."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Counts by operation (`kinesis.GetRecords`, `dynamodb.BatchExecuteStatement`, `pinpoint.GetEndpoint`)."""

    operations: Mapping[str, OperationTally]

    @property
    def requests(self) -> int:
        """Requests, all in all."""
        return sum(tally.requests for tally in self.operations.values())

    @property
    def write_units(self) -> int:
        """DynamoDB write units; index writes are not counted."""
        return sum(tally.write_units for tally in self.operations.values())

    @property
    def by_operation(self) -> dict[str, int]:
        """Requests by operation, most first."""
        ranked = sorted(self.operations.items(), key=lambda entry: (-entry[1].requests, entry[0]))
        return {name: tally.requests for name, tally in ranked if tally.requests}

    def since(self, earlier: Counts) -> Counts:
        """What came between `earlier` and this."""
        return Counts(
            {
                name: tally.minus(earlier.operations.get(name, OperationTally()))
                for name, tally in self.operations.items()
            }
        )


class Meter:
    """Reads the counts. One process's requests count as ours when its User-Agent has `wire.AGENT_TOKEN`."""

    @staticmethod
    def read(emulator: HasEndpoint, pinpoint: HasEndpoint | None = None, *, caller: str = OURS) -> Counts:
        """What `caller` (`wire.OURS` or `wire.OTHERS`) has asked for so far.

        Raises:
            OSError: One of the two does not answer.
        """
        operations = dict(Tally.from_json(_get(emulator, METER_PATH)[caller]).operations)
        if pinpoint is not None:
            operations |= Tally.from_json(_get(pinpoint, "/_fake/stats")["requests"][caller]).operations
        return Counts(operations)


def _get(server: HasEndpoint, path: str) -> dict[str, Any]:
    with urllib.request.urlopen(server.endpoint_url + path, timeout=ANSWER_TIMEOUT_S) as answer:  # noqa: S310
        document: dict[str, Any] = json.load(answer)
    return document
