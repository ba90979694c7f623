"""What rules ask of a Pinpoint event beyond its type: user agent, message, campaign, time of sending. Pure.

Where they stand: `facets.email_channel.mail_event` has `mail.message_id`, `mail.message_send_timestamp` and, in `open`
or `click`, `user_agent`; `attributes` has `campaign_id` or `journey_id`
(https://docs.aws.amazon.com/pinpoint/latest/developerguide/event-streams-data-email.html).
"""

from __future__ import annotations

import msgspec

from service.scoring.event import Details, Event
from service.sources.decoding import JsonObject

_MAIL = ("facets", "email_channel", "mail_event")


def detailed(event: Event, top: JsonObject) -> Event:
    """Return an event with its payload, and with what it says of the message it is about.

    Args:
        event: As decoded.
        top: The whole event.
    """
    mail_event = _inner(top, *_MAIL)
    mail = _inner(mail_event, "mail")
    acted = _inner(mail_event, "open") or _inner(mail_event, "click")
    attributes = _inner(top, "attributes")
    sent = mail.get("message_send_timestamp")
    return msgspec.structs.replace(
        event,
        message=_text(mail, "message_id"),
        campaign=_text(attributes, "campaign_id") or _text(attributes, "journey_id"),
        details=Details(top, _text(acted, "user_agent"), sent_ms=sent if type(sent) is int and sent > 0 else 0),
    )


def _inner(tree: JsonObject, *keys: str) -> JsonObject:
    for key in keys:
        found = tree.get(key)
        if not isinstance(found, dict):
            return {}
        tree = found
    return tree


def _text(tree: JsonObject, key: str) -> str:
    found = tree.get(key)
    return found if isinstance(found, str) else ""
