"""Events without a definition, added up for all workers: one item in the identity table.

Its key is `Id` = `undefined#`, `PinpointProjectId` = `#`; `Types` (S) is a JSON array of `stores.Undefined`. It is one
item, so that nobody scans a table for it, in the table where workers may read and write items without a condition.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import msgspec

from service.aws.calls import ItemReader, batch_put
from service.aws.clients import AwsClient
from service.aws.schema import EXPIRES, IDENTITY_KEYS, key_item
from service.ingest.stores import ProjectType, Undefined
from service.ingest.undefined import merged

_KEY = ("undefined#", "#")
_DAY_S = 86_400

KEPT_DAYS = 14
"""How long a type outlives its last event."""

_types = msgspec.json.Decoder(list[Undefined])


class UndefinedTable:
    """`UndefinedStore` on DynamoDB.

    Args:
        client: DynamoDB.
        table: The identity table's name.
        wall_s: Epoch seconds.
    """

    def __init__(self, client: AwsClient, table: str, *, wall_s: Callable[[], float] = time.time) -> None:
        self._client = client
        self._table = table
        self._wall_s = wall_s
        self._items = ItemReader(client, table, IDENTITY_KEYS, (*IDENTITY_KEYS, "Types"))

    async def load(self) -> Sequence[Undefined]:
        """Return every type counted, the most frequent first.

        Raises:
            TransientError: Not now.
        """
        item = (await self._items.get([_KEY])).get(_KEY)
        return [] if item is None else _types.decode(item["Types"]["S"])

    async def add(self, types: Mapping[ProjectType, Undefined]) -> None:
        """Add counts; see `UndefinedStore.add`."""
        now_s = self._wall_s()
        kept = merged(await self.load(), types.values(), oldest_ms=int((now_s - KEPT_DAYS * _DAY_S) * 1000))
        item = {
            **key_item(IDENTITY_KEYS, _KEY),
            "Types": {"S": msgspec.json.encode(kept).decode()},
            EXPIRES: {"N": str(int(now_s + KEPT_DAYS * _DAY_S))},
        }
        await batch_put(self._client, self._table, [item])
