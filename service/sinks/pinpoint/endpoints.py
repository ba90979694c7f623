"""Which endpoint of a user gets the score, and how a score is written there. Pure.

Facts, from https://docs.aws.amazon.com/pinpoint/latest/apireference/apps-application-id-endpoints.html and
https://docs.aws.amazon.com/pinpoint/latest/developerguide/audience-define-endpoints.html: a user's attributes are
shared by all endpoints with that user id; an update sets `EndpointStatus` to ACTIVE unless the request says otherwise,
so every update says what it was; endpoint ids are not case-sensitive.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

import msgspec

from service.ingest.stores import DirectoryEntry
from service.scoring.change import ScoreChange, format_score

ACTIVE = "ACTIVE"
OPTED_OUT = "ALL"

_CHANNELS = ("EMAIL", "SMS", "PUSH", "GCM", "APNS", "APNS_SANDBOX", "ADM", "BAIDU", "APNS_VOIP", "APNS_VOIP_SANDBOX")
"""Addresses outlive device tokens, and both outlive the other channels: the longer it lives, the earlier it comes."""


class EndpointChoice(msgspec.Struct, frozen=True):
    """The endpoint a user's score is written to.

    Attributes:
        endpoint_id: Its id.
        status: Its `EndpointStatus`, to be passed on unchanged.
        channel: Its `ChannelType`.
    """

    endpoint_id: str
    status: str
    channel: str


def choose_endpoint(endpoints: Iterable[Mapping[str, Any]], kept: str = "") -> EndpointChoice | None:
    """Choose one endpoint of a user: the same one from the same endpoints, in whatever order they come.

    An ACTIVE one where there is one: the one `kept` so far, else one that has not opted out, else by channel and
    id. A user whose endpoints are all INACTIVE still gets the score, on one of them, which stays INACTIVE.

    Args:
        endpoints: `EndpointResponse`s of the user.
        kept: Id of the endpoint chosen before; empty: none.

    Returns:
        The choice; None when there is no endpoint.
    """

    def order(endpoint: Mapping[str, Any]) -> tuple[bool, bool, bool, int, str]:
        endpoint_id, channel = endpoint["Id"], endpoint.get("ChannelType", "")
        return (
            endpoint.get("EndpointStatus", ACTIVE) != ACTIVE,
            endpoint_id.lower() != kept.lower(),
            endpoint.get("OptOut") == OPTED_OUT,
            _CHANNELS.index(channel) if channel in _CHANNELS else len(_CHANNELS),
            endpoint_id,
        )

    first = min(endpoints, key=order, default=None)
    if first is None:
        return None
    return EndpointChoice(first["Id"], first.get("EndpointStatus", ACTIVE), first.get("ChannelType", ""))


def batch_items(change: ScoreChange, target: DirectoryEntry, attribute: str, metric: str) -> list[dict[str, Any]]:
    """Return the `EndpointBatchItem`s that write a score and leave all else as it is.

    The user's attributes are the same on all endpoints, so one of them is enough. Metrics are an endpoint's own: where
    there is one, every endpoint of the user gets it. An item of these other endpoints names no user, so it cannot take
    an endpoint away from one.

    Args:
        change: Not a removal.
        target: Endpoints that exist: an update of another would create it.
        attribute: User attribute, a list of one string.
        metric: Endpoint metric that gets the score as a number too; empty: none.
    """
    score = change.score or Decimal(0)
    first: dict[str, Any] = {
        "Id": target.endpoint_id,
        "EndpointStatus": target.endpoint_status,
        "User": {"UserId": change.key.user_id, "UserAttributes": {attribute: [format_score(score)]}},
    }
    if not metric:
        return [first]
    metrics = {"Metrics": {metric: float(score)}}
    others = [{"Id": endpoint_id, "EndpointStatus": status, **metrics} for endpoint_id, status in target.others]
    return [first | metrics, *others]
