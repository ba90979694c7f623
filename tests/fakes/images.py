"""Items of the score table, and its stream's images of them."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from service.scoring.change import ScoreChange, StreamImage, change_of
from service.scoring.event import Rejected
from service.scoring.fold import UserKey

Item = Mapping[str, Mapping[str, object]]


def key_item(key: UserKey) -> dict[str, dict[str, str]]:
    """Return the key attributes of a user's item."""
    return {"UserId": {"S": key.user_id}, "PinpointProjectId": {"S": key.project_id}}


def stream_image(keys: Item, new: Item | None) -> StreamImage:
    """Return the image of an item in DynamoDB's JSON."""
    text = [None if item is None else msgspec.Raw(msgspec.json.encode(item)) for item in (keys, new)]
    return StreamImage(text[0] or msgspec.Raw(), text[1])


def change_in(keys: Item, new: Item | None) -> ScoreChange | Rejected | None:
    """Return the change that an item in DynamoDB's JSON says."""
    made = stream_image(keys, new)
    return change_of(made.keys, made.new)
