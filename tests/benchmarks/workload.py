"""What is played in a benchmark: which event is whose, what it is worth, and when it is on the stream.

Everything follows from an event's index, so that the stub server needs no memory for a backlog, and knows the truth.
"""

from __future__ import annotations

import base64
from collections import Counter

import msgspec

PROJECT = "5f0c2d9e8b7a4c61a3d2e1f0b9c8a7d6"
POINTS = {"_email.delivered": 2, "_email.open": 10, "_email.click": 50, "_campaign.opened_notification": 50}
_TYPES = ("_email.delivered", "_email.open", "_email.delivered", "_email.click")
RECORD_BYTES = 1200
_ID_DIGITS = 10
_FIRST_SEQUENCE = 49_590_338_271_490_256_608_559_692_538_361_571_095_921_575_989_136_588_898


class Workload(msgspec.Struct, frozen=True):
    """One workload.

    Attributes:
        name: As in the results.
        events: How many.
        users: Event `i` is of user `i % users`, after `runs` events of one user in a row.
        per_user: Events of one user that follow each other, within one batch.
        shards: Shards of the stream; event `i` is on shard `(i // per_user) % shards`.
        rate: Events per second; 0: all are there before the client starts.
        first_user: Number of the first user: another workload's users are others.
        warm: Whether the identity table knows every endpoint, and every user's endpoint, already.
        publishes: Whether scores are expected in Pinpoint.
    """

    name: str
    events: int
    users: int
    per_user: int = 1
    shards: int = 4
    rate: float = 0.0
    first_user: int = 0
    warm: bool = True
    publishes: bool = True

    def user(self, index: int) -> int:
        """Return the number of the user of an event."""
        return self.first_user + (index // self.per_user) % self.users

    def event_type(self, index: int) -> str:
        """Return an event's type."""
        return _TYPES[(index + index // self.users) % len(_TYPES)]

    def index(self, shard: int, position: int) -> int:
        """Return which event is at a position of a shard."""
        run, offset = divmod(position, self.per_user)
        return (run * self.shards + shard) * self.per_user + offset

    def on_shard(self, shard: int) -> int:
        """Return how many events a shard has in the end."""
        runs = self.events // self.per_user
        return (runs // self.shards + (shard < runs % self.shards)) * self.per_user

    def truth(self) -> dict[int, int]:
        """Return every user's score in the end."""
        scores: Counter[int] = Counter()
        for index in range(self.events):
            scores[self.user(index)] += POINTS[self.event_type(index)]
        return dict(scores)


def user_id(user: int) -> str:
    """Return a user's id."""
    return f"u-{user:0{_ID_DIGITS}d}"


def endpoint_id(user: int) -> str:
    """Return the id of a user's only endpoint."""
    return f"e-{user:0{_ID_DIGITS}d}"


def endpoint(user: int) -> dict[str, object]:
    """Return the user's endpoint, as Pinpoint shows it."""
    return {
        "Id": endpoint_id(user),
        "ApplicationId": PROJECT,
        "ChannelType": "EMAIL",
        "Address": "someone@example.com",
        "EndpointStatus": "ACTIVE",
        "OptOut": "NONE",
        "User": {"UserId": user_id(user), "UserAttributes": {}},
    }


def number_of(any_id: str) -> int:
    """Return the user's number, from a user's or an endpoint's id."""
    return int(any_id[-_ID_DIGITS:])


def sequence(position: int) -> str:
    """Return the sequence number of a position of a shard: 56 digits, as Kinesis has them."""
    return str(_FIRST_SEQUENCE + position)


def position_of(number: str) -> int:
    """Return the position that a sequence number names."""
    return int(number) - _FIRST_SEQUENCE


def _payload(event_type: str, endpoint: str, pad: str) -> bytes:
    """Return a record as Pinpoint writes it for an e-mail event: the endpoint is named, the user is not."""
    record = {
        "event_type": event_type,
        "event_timestamp": 1790000002863,
        "arrival_timestamp": 1790000003117,
        "event_version": "3.1",
        "application": {"app_id": PROJECT, "sdk": {}},
        "client": {"client_id": endpoint},
        "device": {"platform": {}},
        "session": {},
        "attributes": {
            "campaign_id": "f552cc5023d8319aea1181f76f3adcbd",
            "campaign_activity_id": "c189941acf780de956fe5d1483d7a598",
            "treatment_id": "0",
            "delivery_type": "EMAIL",
            "user_agent": "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko)",
            "x-filler": "",
        },
        "metrics": {},
        "facets": {
            "email_channel": {
                "mail_event": {
                    "mail": {
                        "message_id": "0100018a5f6d7c8e-1b2c3d4e-5f60-7182-93a4-b5c6d7e8f900-000000",
                        "message_send_timestamp": 1790000002863,
                        "from_address": "news@example.com",
                        "destination": ["someone@example.com"],
                        "headers_truncated": False,
                        "headers": [{"name": "Subject", "value": "What is new this week"}],
                        "common_headers": {"from": "news@example.com", "subject": "What is new this week"},
                    },
                    "delivery": {"smtp_response": "250 2.6.0 Message received", "reporting_mta": "a8-4.example.com"},
                }
            }
        },
        "awsAccountId": "111122223333",
        "pad": pad,
    }
    return msgspec.json.encode(record)


class Rendered(msgspec.Struct, frozen=True):
    """A record of one type in Base64, without the one part that differs."""

    head: bytes
    tail: bytes


def _render(event_type: str) -> Rendered:
    """Cut a record around the endpoint's id, at places where its Base64 can be put together from parts."""
    marker = "e-" + "#" * _ID_DIGITS
    size = len(_payload(event_type, marker, ""))
    payload = _payload(event_type, marker, "x" * max(0, RECORD_BYTES - size))
    # The event's type moves the rest about; a blank more or less keeps every third byte where it must be.
    start = payload.index(marker.encode())
    blanks = b" " * (-start % 3)
    payload = b"{" + blanks + payload[1:]
    start += len(blanks)
    return Rendered(base64.b64encode(payload[:start]), base64.b64encode(payload[start + len(marker) :]))


class Records:
    """Kinesis records of a workload as GetRecords shows them, rendered when asked for."""

    def __init__(self, workload: Workload) -> None:
        self._workload = workload
        self._rendered = {event_type: _render(event_type) for event_type in POINTS}

    def page(self, shard: int, start: int, count: int, arrived: list[float]) -> bytes:
        """Return `count` records from a position on, joined by commas; `arrived` are epoch seconds."""
        workload, rendered = self._workload, self._rendered
        parts = []
        for position, at in zip(range(start, start + count), arrived, strict=True):
            index = workload.index(shard, position)
            user = workload.user(index)
            each = rendered[workload.event_type(index)]
            name = base64.b64encode(b"e-%010d" % user)
            parts.append(
                b'{"SequenceNumber":"%b","ApproximateArrivalTimestamp":%.3f,"Data":"%b%b%b","PartitionKey":"e-%010d"}'
                % (sequence(position).encode(), at, each.head, name, each.tail, user)
            )
        return b",".join(parts)

    def payload(self, index: int) -> bytes:
        """Return one event's record, decoded."""
        workload = self._workload
        each = self._rendered[workload.event_type(index)]
        name = base64.b64encode(b"e-%010d" % workload.user(index))
        return base64.b64decode(each.head + name + each.tail)
