"""The people of the demo: seeded, so that a seed tells the whole story again.

Addresses are in the ranges set aside for examples: example.com (RFC 2606), 555-0100 to 555-0199 of North
American area codes (kept for fiction); tokens are random digits. No two endpoints share an address: Pinpoint
lets an address belong to one active endpoint only.
"""

from __future__ import annotations

from random import Random

import msgspec

PROJECT_ID = "5f0c2d9e8b7a4c61a3d2e1f0b9c8a7d6"
"""The demo's Pinpoint project (32 hex digits, as Pinpoint's own)."""

MAX_USERS = 50_000
"""Most users a population has: it is held in memory, and telephone numbers for fiction are 78,900."""

_QUIET_SHARE = 50
_NOBODY_SHARE = 200


class Endpoint(msgspec.Struct, frozen=True, gc=False):
    """One address or device.

    Attributes:
        endpoint_id: Its id in Pinpoint.
        user_id: Whose it is; empty where Pinpoint knows no user for it.
        channel: `EMAIL`, `SMS`, `GCM` or `APNS`.
        address: Where messages go.
        active: Whether Pinpoint would send to it (`EndpointStatus`).
        opted_out: Whether its owner has refused messages (`OptOut`).
        registered: Whether Pinpoint knows it.
    """

    endpoint_id: str
    user_id: str
    channel: str
    address: str
    active: bool = True
    opted_out: bool = False
    registered: bool = True

    @property
    def is_device(self) -> bool:
        """Whether an app's SDK sends events from it."""
        return self.channel in {"GCM", "APNS"}


class Population(msgspec.Struct, frozen=True):
    """Everybody and everything that Pinpoint knows before the campaign starts.

    Attributes:
        users: User ids.
        endpoints: The endpoints of all users, in the users' order.
        quiet: Those of `endpoints` that no event ever names a user for: only `GetEndpoint` knows.
        nobodies: Endpoints without a user.
    """

    users: tuple[str, ...]
    endpoints: tuple[Endpoint, ...]
    quiet: tuple[Endpoint, ...]
    nobodies: tuple[Endpoint, ...]

    @property
    def everything(self) -> tuple[Endpoint, ...]:
        """All endpoints, with and without a user."""
        return self.endpoints + self.nobodies


def populate(users: int, seed: int) -> Population:
    """Return a population of `users` people with one to three endpoints each.

    The first endpoint of each user is an e-mail address and ACTIVE, so that everybody can be reached; of
    the others some are INACTIVE or opted out.

    Raises:
        ValueError: More than `MAX_USERS`, or none.
    """
    if not 0 < users <= MAX_USERS:
        raise ValueError(f"a population has 1 to {MAX_USERS:,} users, not {users:,}")
    rng = Random(f"population-{seed}")  # noqa: S311 - a seed must tell the same story again
    user_ids = tuple(f"u-{number:05d}-{rng.getrandbits(32):08x}" for number in range(1, users + 1))
    endpoints: list[Endpoint] = []
    firsts: list[Endpoint] = []
    for number, user_id in enumerate(user_ids, start=1):
        first = Endpoint(_endpoint_id(rng), user_id, "EMAIL", f"member{number}@example.com")
        firsts.append(first)
        endpoints.append(first)
        further = rng.choices((0, 1, 2), (25, 50, 25))[0]
        endpoints.extend(_further(rng, user_id, number, rng.sample(("SMS", "GCM", "APNS", "EMAIL"), further)))
    return Population(
        users=user_ids,
        endpoints=tuple(endpoints),
        quiet=tuple(rng.sample(firsts, max(1, users // _QUIET_SHARE))),
        nobodies=tuple(
            Endpoint(_endpoint_id(rng), "", "EMAIL", f"visitor{number}@example.com")
            for number in range(1, max(1, users // _NOBODY_SHARE) + 1)
        ),
    )


def chance(rng: Random, probability: float) -> bool:
    """Return whether something with this probability happens this time."""
    return rng.random() < probability


def _further(rng: Random, user_id: str, number: int, channels: list[str]) -> list[Endpoint]:
    return [
        Endpoint(
            _endpoint_id(rng),
            user_id,
            channel,
            _address(rng, channel, number),
            active=not chance(rng, 0.08),
            opted_out=chance(rng, 0.04),
        )
        for channel in channels
    ]


def _address(rng: Random, channel: str, number: int) -> str:
    match channel:
        case "SMS":
            area, line = divmod(number, 100)
            return f"+1{201 + area}55501{line:02d}"
        case "EMAIL":
            return f"member{number}.home@example.com"
        case _:
            return f"{rng.getrandbits(256):064x}"


def _endpoint_id(rng: Random) -> str:
    digits = f"{rng.getrandbits(128):032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
