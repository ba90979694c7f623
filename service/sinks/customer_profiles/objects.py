"""The profile object that carries a score, and its object type. Pure.

Facts, from API_connect-customer-profiles_PutProfileObjectType.html and
API_connect-customer-profiles_BatchPutProfileObject.html in https://docs.aws.amazon.com/connect/latest/APIReference/,
https://docs.aws.amazon.com/connect/latest/adminguide/customer-profiles-object-type-mappings.html. An object with the
same key replaces the one before. The field that the key `_account` is made of finds the profile by its account number.
What an object writes to an attribute never overwrites what CreateProfile or UpdateProfile has written there. Success
means that the object is queued; one that belongs to no profile goes to the domain's dead-letter queue.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from service.scoring.change import ScoreChange, format_score

MAX_ITEMS = 10
"""Objects per BatchPutProfileObject."""

MAX_ACCOUNT = 255
"""Characters of a profile's account number
(https://docs.aws.amazon.com/connect/latest/APIReference/API_connect-customer-profiles_Profile.html)."""

NAME = re.compile(r"[a-zA-Z_][a-zA-Z_0-9-]{0,254}")
"""An object type's name."""

ATTRIBUTE = re.compile(r"[a-zA-Z_][a-zA-Z_0-9-]{0,99}")
"""An attribute's name; our own choice, as the service does not say what it takes."""


def filled(template: str, project_id: str) -> str:
    """Return a name for a project: `{project}` stands for it."""
    return template.replace("{project}", project_id)


def profile_object(change: ScoreChange) -> str:
    """Return the object, as the text that `Object` is."""
    score = format_score(change.score) if change.score is not None else "0"
    fields = {
        "userId": change.key.user_id,
        "score": msgspec.Raw(score.encode()),
        "revision": change.revision,
    }
    return msgspec.json.encode(fields).decode()


def object_type(name: str, attribute: str, *, expiration_days: int, create: bool) -> dict[str, Any]:
    """Return the arguments of PutProfileObjectType, but for the domain.

    Args:
        name: Of the object type.
        attribute: Of the profile: gets the score.
        expiration_days: How long an object, and its part of the profile, is kept.
        create: Whether a user without a profile gets one.
    """
    return {
        "ObjectTypeName": name,
        "Description": "Engagement score of a user, written by engagement-scoring",
        "ExpirationDays": expiration_days,
        "AllowProfileCreation": create,
        "Fields": {
            "userId": {"Source": "_source.userId", "Target": "_profile.AccountNumber", "ContentType": "STRING"},
            "score": {"Source": "_source.score", "Target": f"_profile.Attributes.{attribute}", "ContentType": "NUMBER"},
            "revision": {"Source": "_source.revision", "ContentType": "NUMBER"},
        },
        "Keys": {"_account": [{"StandardIdentifiers": ["PROFILE", "UNIQUE"], "FieldNames": ["userId"]}]},
    }


def difference(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """Return in what an object type differs from the one that is wanted, for people; empty: in nothing that matters."""
    parts = []
    for name in ("Fields", "Keys", "ExpirationDays", "AllowProfileCreation"):
        here, there = wanted[name], found.get(name)
        if name == "Keys":
            here, there = _keys(here), _keys(there or {})
        if here != there:
            parts.append(f"{name} is {_shown(there)}, not {_shown(here)}")
    return "; ".join(parts)


def _keys(keys: Mapping[str, Any]) -> dict[str, Any]:
    """Return keys without the order of what is a set."""
    return {
        name: [(sorted(each.get("StandardIdentifiers", ())), each.get("FieldNames", [])) for each in parts]
        for name, parts in keys.items()
    }


def _shown(value: object) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= 300 else f"{text[:300]}..."  # noqa: PLR2004 - some lines of a terminal
