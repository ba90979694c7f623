"""Whether a person opened or clicked, as far as can be known: a heuristic, and the list it works with.

Not every machine can be recognised: security gateways that render mail with a browser's user agent look like people.
What is on the list acts alone, without a person:

- Apple Mail Privacy Protection loads images by proxy, with the user agent `Mozilla/5.0` and nothing else.
- Gmail's app fetches images before it shows a message, with a fixed, outdated browser string
  (https://messagebird.com/blog/gmail-prefetching-images). Its image proxy (`GoogleImageProxy`) is not on the list: it
  asks when a person opens the message.
- A sender's own flag, where it has one (`machine` in a source's mapping).
- What happens sooner after the sending than a person could act, where both times are known.
"""

from __future__ import annotations

PREFETCHERS = frozenset(
    {
        "Mozilla/5.0",
        (
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/42.0.2311.135 "
            "Safari/537.36 Edge/12.246 Mozilla/5.0"
        ),
    }
)
"""Whole user agents of services that fetch images by themselves."""


def is_human(user_agent: str, machine: bool, at_ms: int, sent_ms: int, min_seconds: int) -> bool:  # noqa: FBT001 - a fact, not a switch
    """Return whether nothing says that a machine did it.

    Args:
        user_agent: Of the open or click; empty: not known.
        machine: The sender's own flag.
        at_ms: When it happened, epoch milliseconds; 0: not known.
        sent_ms: When the message was sent, epoch milliseconds; 0: not known.
        min_seconds: Least seconds that a person takes.
    """
    if machine or user_agent.strip() in PREFETCHERS:
        return False
    return not (at_ms and sent_ms and at_ms - sent_ms < min_seconds * 1000)
