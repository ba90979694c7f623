"""The lease table: `LeaseStore` and `Membership` of one stream by conditional writes.

One item per row; the keys of one stream and pipeline share the prefix `<pipeline>:<stream tag>:`.

| `leaseKey` (HASH, S) | row |
|---|---|
| `<prefix><shard id>` | a lease; shard ids hold no colon |
| `<prefix>member:<worker>` | a worker |
| `<prefix>leader:` | the leadership |

Leases carry the attribute names of the Kinesis Client Library (`leaseOwner`, `leaseCounter`, `checkpoint`,
`parentShardId`, `childShardIds`, `ownerSwitchesSinceCheckpoint`;
https://docs.aws.amazon.com/streams/latest/dev/kcl-dynamoDB.html), so its users recognise them, and ours beside
them (`unsettled`, present where true, and `startingSequenceNumber`, present where known: see `Lease`). There is no
time to live: a row that vanished would be read again from the start.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import msgspec
from botocore.exceptions import ClientError

from service.aws.calls import SETUP, Item, pages
from service.aws.clients import AwsClient
from service.aws.schema import LEASE_KEYS, key_item
from service.aws.translation import is_condition_failure, item_of, translated
from service.stream.leases.lease import Assigned, Leadership, Lease, Member, Snapshot
from service.stream.ports import StreamId

_MEMBER = "member:"
LEADER = "leader:"
"""Behind a stream's prefix: the key of its leadership row."""

_UNCHANGED = "leaseCounter = :counter AND leaseOwner = :owner"
_UNCHANGED_UNOWNED = "leaseCounter = :counter AND attribute_not_exists(leaseOwner)"


class LeaseTable:
    """`LeaseStore` and `Membership` on DynamoDB.

    Args:
        client: DynamoDB.
        table: Its name; many pipelines and streams share it.
        pipeline: `ingest` or `publish`.
        stream: The stream whose shards are leased.
    """

    def __init__(self, client: AwsClient, table: str, pipeline: str, stream: StreamId) -> None:
        self._client = client
        self._table = table
        self._stream = stream
        self._prefix = f"{pipeline}:{stream.tag}:"
        self._what = f"table {table}"

    async def snapshot(self) -> Snapshot:
        """Return every row of this stream; see `LeaseStore.snapshot`.

        A scan reads (and pays for) the whole table, which holds nothing but leases of few streams.
        """
        leases: list[Lease] = []
        members: list[Member] = []
        leadership: Leadership | None = None
        async for page in pages(
            self._client.scan,
            self._what,
            TableName=self._table,
            ConsistentRead=True,
            FilterExpression="begins_with(leaseKey, :prefix)",
            ExpressionAttributeValues={":prefix": {"S": self._prefix}},
        ):
            with translated(self._what):
                for item in page:
                    name = item[LEASE_KEYS[0]]["S"].removeprefix(self._prefix)
                    if name == LEADER:
                        leadership = _leadership(item)
                    elif name.startswith(_MEMBER):
                        members.append(_member(name.removeprefix(_MEMBER), item))
                    else:
                        leases.append(_lease(name, item))
        return Snapshot(tuple(leases), tuple(members), leadership)

    async def create(self, lease: Lease) -> bool:
        """Write a new row unless there is one; see `LeaseStore.create`."""
        refused, _ = await self._put(self._lease_item(lease), "attribute_not_exists(leaseKey)", {})
        return not refused

    async def replace(self, expected: Lease, new: Lease) -> Lease | None:
        """Write `new` where owner and counter still stand; see `LeaseStore.replace`."""
        refused, item = await self._put(self._lease_item(new), *_condition(expected.owner, expected.counter))
        if not refused:
            return None
        if item is None:
            return msgspec.structs.replace(expected, owner="", counter=-1)
        current = _lease(new.shard_id, item)
        return new if current == _sorted(new) else current

    async def get(self, shard_id: str) -> Lease | None:
        """Return one row; see `LeaseStore.get`."""
        item = await self._get(shard_id)
        return None if item is None else _lease(shard_id, item)

    async def delete(self, expected: Lease) -> bool:
        """Remove the row where owner and counter still stand; see `LeaseStore.delete`."""
        condition, values = _condition(expected.owner, expected.counter)
        with translated(self._what):
            try:
                await self._client.delete_item(
                    TableName=self._table,
                    Key=self._key(expected.shard_id),
                    ConditionExpression=condition,
                    ExpressionAttributeValues=values,
                    ReturnValuesOnConditionCheckFailure="ALL_OLD",
                )
            except ClientError as error:
                if is_condition_failure(error):
                    return item_of(error) is None
                raise
        return True

    async def join(self, member: Member) -> None:
        """Write this worker's row; see `Membership.join`."""
        await self._put(
            {
                **self._key(_MEMBER + member.worker),
                "beats": _number(0),
                "beatAt": _number(member.beat_ms),
                "assignmentVersion": _number(0),
                **({"capability": _number(member.capability)} if member.capability else {}),
            }
        )

    async def beat(self, worker: str, wall_ms: int, *, leaving: bool = False) -> Member | None:
        """Count this worker's heartbeat up; see `Membership.beat`.

        An update is charged by the size of the whole item
        (https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/read-write-operations.html): hence
        the packed assignment.
        """
        expression, values = "ADD beats :one SET beatAt = :now", {":one": _number(1), ":now": _number(wall_ms)}
        if leaving:
            expression, values = f"{expression}, leaving = :leaving", values | {":leaving": {"BOOL": True}}
        item = await self._update(worker, expression, values)
        return None if item is None else _member(worker, item)

    async def assign(self, worker: str, member: Member) -> bool:
        """Set what a worker is to hold; see `Membership.assign`."""
        values = {":assigned": {"B": _packed(member.assigned)}, ":version": _number(member.version)}
        item = await self._update(worker, "SET assigned = :assigned, assignmentVersion = :version", values)
        return item is not None

    async def remove(self, worker: str) -> None:
        """Remove a worker's row; see `Membership.remove`."""
        with translated(self._what):
            await self._client.delete_item(TableName=self._table, Key=self._key(_MEMBER + worker))

    async def leadership(self) -> Leadership | None:
        """Return the leadership row, read consistently; None where there is none."""
        item = await self._get(LEADER)
        return None if item is None else _leadership(item)

    async def lead(self, expected: Leadership | None, new: Leadership) -> bool:
        """Write the leadership where it still stands; see `Membership.lead`."""
        condition, values = (
            ("attribute_not_exists(leaseKey)", {})
            if expected is None
            else _condition(expected.leader, expected.counter)
        )
        item = {
            **self._key(LEADER),
            **_owner(new.leader),
            "leaseCounter": _number(new.counter),
            "initialPosition": {"S": new.initial},
            "discovered": {"BOOL": new.discovered},
            "plans": _number(new.plans),
        }
        if new.sharing is not None:
            item["sharing"] = {"B": new.sharing}
        if new.target:
            item["target"] = {"S": new.target}
        refused, current = await self._put(item, condition, values)
        # Our own write whose answer was lost, repeated by the client, is refused by what it wrote itself.
        return not refused or (current is not None and _leadership(current) == new)

    def _key(self, name: str) -> dict[str, dict[str, Any]]:
        return key_item(LEASE_KEYS, (self._prefix + name,))

    def _lease_item(self, lease: Lease) -> dict[str, dict[str, Any]]:
        item = {
            **self._key(lease.shard_id),
            **_owner(lease.owner),
            "leaseCounter": _number(lease.counter),
            "checkpoint": {"S": lease.checkpoint},
            "ownerSwitchesSinceCheckpoint": _number(lease.owner_switches),
            "shardId": {"S": lease.shard_id},
            "stream": {"S": self._stream.name},
            "checkpointedAt": _number(lease.checkpoint_ms),
            "endedAt": _number(lease.ended_ms),
        }
        if lease.parents:
            item["parentShardId"] = {"SS": list(lease.parents)}
        if lease.children:
            item["childShardIds"] = {"SS": list(lease.children)}
        if lease.unsettled:
            item["unsettled"] = {"BOOL": True}
        if lease.starting:
            item["startingSequenceNumber"] = {"S": lease.starting}
        return item

    async def _get(self, name: str) -> Item | None:
        with translated(self._what):
            answer = await self._client.get_item(TableName=self._table, Key=self._key(name), ConsistentRead=True)
        item: Item | None = answer.get("Item")
        return item

    async def _put(
        self, item: Item, condition: str = "", values: Mapping[str, Any] | None = None
    ) -> tuple[bool, Item | None]:
        """Write an item; return whether the condition refused it, and then what is there."""
        request: dict[str, Any] = {"TableName": self._table, "Item": item}
        if condition:
            request |= {"ConditionExpression": condition, "ReturnValuesOnConditionCheckFailure": "ALL_OLD"}
        if values:
            request["ExpressionAttributeValues"] = values
        with translated(self._what):
            try:
                await self._client.put_item(**request)
            except ClientError as error:
                if is_condition_failure(error):
                    return True, item_of(error)
                raise
        return False, None

    async def _update(self, worker: str, expression: str, values: Mapping[str, Any]) -> Item | None:
        with translated(self._what):
            try:
                answer = await self._client.update_item(
                    TableName=self._table,
                    Key=self._key(_MEMBER + worker),
                    UpdateExpression=expression,
                    ConditionExpression="attribute_exists(leaseKey)",
                    ExpressionAttributeValues=values,
                    ReturnValues="ALL_NEW",
                )
            except ClientError as error:
                if is_condition_failure(error):
                    return None
                raise
            item: Item = answer["Attributes"]
        return item


async def snapshot_of_all(client: AwsClient, table: str, pipeline: str) -> Snapshot:
    """Return the leases and workers of a pipeline for all its streams; there is no one leadership.

    Raises:
        AwsSetupError: There is no such table, or it may not be read.
        TransientError: Not now.
    """
    leases: list[Lease] = []
    members: list[Member] = []
    what = f"table {table}"
    async for page in pages(client.scan, what, remedy=SETUP, TableName=table, ConsistentRead=True):
        with translated(what):
            for item in page:
                of, _, rest = item[LEASE_KEYS[0]]["S"].partition(":")
                name = rest.partition(":")[2]
                if of != pipeline or name == LEADER:
                    continue
                if name.startswith(_MEMBER):
                    members.append(_member(name.removeprefix(_MEMBER), item))
                elif "checkpoint" in item and "leaseCounter" in item:
                    leases.append(_lease(name, item))
    return Snapshot(tuple(leases), tuple(members), None)


class Fleet(msgspec.Struct, frozen=True):
    """The workers of a pipeline, whatever stream each reads.

    Attributes:
        workers: How many have a row.
        share: Whether they share rates: whether every leader lists those that do.
    """

    workers: int = 0
    share: bool = True


async def fleets(client: AwsClient, table: str) -> Mapping[str, Fleet]:
    """Return the workers of each pipeline that has any.

    Raises:
        AwsSetupError: There is no such table, or it may not be read.
        TransientError: Not now.
    """
    found: dict[str, Fleet] = {}
    what = f"table {table}"
    async for page in pages(client.scan, what, remedy=SETUP, TableName=table):
        with translated(what):
            for item in page:
                pipeline, _, rest = item[LEASE_KEYS[0]]["S"].partition(":")
                name = rest.partition(":")[2]
                fleet = found.get(pipeline, Fleet())
                if name.startswith(_MEMBER):
                    found[pipeline] = Fleet(fleet.workers + 1, fleet.share)
                elif name == LEADER and _leadership(item).leader and _leadership(item).sharing is None:
                    found[pipeline] = Fleet(fleet.workers, share=False)
    return {pipeline: fleet for pipeline, fleet in found.items() if fleet.workers}


def _condition(owner: str, counter: int) -> tuple[str, dict[str, Any]]:
    if owner:
        return _UNCHANGED, {":counter": _number(counter), ":owner": {"S": owner}}
    return _UNCHANGED_UNOWNED, {":counter": _number(counter)}


def _number(value: int) -> dict[str, Any]:
    return {"N": str(value)}


def _owner(owner: str) -> dict[str, dict[str, Any]]:
    return {"leaseOwner": {"S": owner}} if owner else {}


def _sorted(lease: Lease) -> Lease:
    """Return the lease as it is read back: DynamoDB's sets have no order."""
    return msgspec.structs.replace(lease, parents=tuple(sorted(lease.parents)), children=tuple(sorted(lease.children)))


def _lease(shard_id: str, item: Item) -> Lease:
    return Lease(
        shard_id=shard_id,
        checkpoint=item["checkpoint"]["S"],
        owner=item.get("leaseOwner", {}).get("S", ""),
        counter=int(item["leaseCounter"]["N"]),
        parents=tuple(sorted(item.get("parentShardId", {}).get("SS", ()))),
        children=tuple(sorted(item.get("childShardIds", {}).get("SS", ()))),
        owner_switches=_int(item, "ownerSwitchesSinceCheckpoint"),
        ended_ms=_int(item, "endedAt"),
        checkpoint_ms=_int(item, "checkpointedAt"),
        unsettled=item.get("unsettled", {}).get("BOOL", False),
        starting=item.get("startingSequenceNumber", {}).get("S", ""),
    )


def _leadership(item: Item) -> Leadership:
    return Leadership(
        leader=item.get("leaseOwner", {}).get("S", ""),
        counter=int(item["leaseCounter"]["N"]),
        initial=item["initialPosition"]["S"],
        discovered=item["discovered"]["BOOL"],
        plans=_int(item, "plans"),
        target=item.get("target", {}).get("S", ""),
        sharing=item.get("sharing", {}).get("B"),
    )


def _member(worker: str, item: Item) -> Member:
    return Member(
        worker=worker,
        beats=_int(item, "beats"),
        beat_ms=_int(item, "beatAt"),
        assigned=_unpacked(item["assigned"]["B"]) if "assigned" in item else (),
        version=_int(item, "assignmentVersion"),
        leaving=item.get("leaving", {}).get("BOOL", False),
        capability=_int(item, "capability"),
    )


def _int(item: Item, name: str) -> int:
    return int(item[name]["N"]) if name in item else 0


def _packed(assigned: tuple[Assigned, ...]) -> bytes:
    """Return an assignment as compressed JSON: shard ids differ in few digits, so it shrinks well."""
    rows = [[each.shard_id, each.seize_owner, each.seize_counter] for each in assigned]
    return zlib.compress(msgspec.json.encode(rows))


def _unpacked(packed: bytes) -> tuple[Assigned, ...]:
    rows = msgspec.json.decode(zlib.decompress(packed), type=list[tuple[str, str, int]])
    return tuple(Assigned(*row) for row in rows)
