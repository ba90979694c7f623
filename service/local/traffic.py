"""A campaign's events, seeded: what happens to whom and when, and what each record means.

Pure: no clock, no I/O. `campaign` plays one campaign of a given size; `stream` never ends. Neither
depends on how the service reads them: records carry random partition keys (as far as anybody outside can
tell, Pinpoint's do too), so the events of one endpoint spread over all shards, an open may well be
processed before the send that names its user, and no score may depend on that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from random import Random

import msgspec

from service.local.population import PROJECT_ID, Endpoint, Population, chance
from service.local.shapes import OTHER_PROJECT_ID, SPOILERS, Draft, render, spoil

CHAPTER_EVENTS = 4_000
"""Events that `stream` plans at once: what it holds in memory."""

Beat = tuple[float, Draft | str]
"""When (0 to 1, the length of the campaign), and what: a draft, or the way a record is spoiled."""


class Meaning(msgspec.Struct, frozen=True, gc=False):
    """What the generator knows about a record that it made.

    Attributes:
        event_type: Empty for a record that is not an event.
        user_id: Whose event it is, whether or not the record says so; empty for nobody's.
        attributed: Whether a campaign or journey caused it.
        known: Whether its endpoint exists in Pinpoint.
        foreign: Whether it comes from another project.
        fault: Why it is not an event; empty if it is one.
    """

    event_type: str
    user_id: str = ""
    attributed: bool = False
    known: bool = True
    foreign: bool = False
    fault: str = ""


class Record(msgspec.Struct, frozen=True, gc=False):
    """One record to put on the stream.

    Attributes:
        due_s: When, seconds after the start.
        partition_key: 32 random hex digits.
        meaning: What it should do to the scores.
        beat: What it is made of.
        seed: Of its random ids.
        spare: Whose event it would be, were it not spoiled.
    """

    due_s: float
    partition_key: str
    meaning: Meaning
    beat: Draft | str
    seed: int
    spare: Endpoint

    def data(self, now_ms: int, project_id: str = PROJECT_ID) -> bytes:
        """Return the record's bytes.

        Args:
            now_ms: When it arrives, epoch milliseconds.
            project_id: The project that the population belongs to.
        """
        rng = Random(self.seed)  # noqa: S311 - seeded on purpose
        if isinstance(self.beat, str):
            return spoil(self.beat, self.spare, rng, now_ms, project_id)
        draft = self.beat
        if project_id != PROJECT_ID and draft.project_id == PROJECT_ID:
            draft = msgspec.structs.replace(draft, project_id=project_id)
        return render(draft, rng, now_ms)


def campaign(population: Population, events: int, seed: int, *, rate: float = 1_000.0) -> Iterator[Record]:
    """Yield exactly `events` records of one campaign, in the order in which they are put on the stream.

    Args:
        population: To whom it happens.
        events: How many records; at least 1.
        seed: Another seed, another campaign.
        rate: Records per second; it decides `due_s`, nothing else.
    """
    rng = Random(f"campaign-{seed}")  # noqa: S311 - seeded on purpose
    yield from _records(rng, population, _plan(rng, population, events), 0.0, rate)


def stream(population: Population, seed: int, rate: float) -> Iterator[Record]:
    """Yield campaign after campaign, `rate` records per second, without end."""
    for chapter in count():
        rng = Random(f"stream-{seed}-{chapter}")  # noqa: S311 - seeded on purpose
        plan = _plan(rng, population, CHAPTER_EVENTS)
        yield from _records(rng, population, plan, chapter * CHAPTER_EVENTS / rate, rate)


def _records(rng: Random, population: Population, plan: list[Beat], start_s: float, rate: float) -> Iterator[Record]:
    for number, (_, beat) in enumerate(plan):
        yield Record(
            due_s=start_s + number / rate,
            partition_key=f"{rng.getrandbits(128):032x}",
            meaning=_meaning(beat),
            beat=beat,
            seed=rng.getrandbits(64),
            spare=population.endpoints[number % len(population.endpoints)],
        )


def _meaning(beat: Draft | str) -> Meaning:
    if isinstance(beat, str):
        return Meaning("", fault=SPOILERS[beat][0])
    return Meaning(
        beat.event_type,
        beat.endpoint.user_id,
        attributed=bool(beat.cause) or beat.event_type.startswith(("_campaign.", "_journey.")),
        known=beat.endpoint.registered,
        foreign=beat.project_id == OTHER_PROJECT_ID,
    )


def _plan(rng: Random, population: Population, events: int) -> list[Beat]:
    beats: list[Beat] = [(0.0, Draft("_test.event_stream", Endpoint("probe", "", "EMAIL", "", registered=False)))]
    quiet = set(population.quiet)
    cast = [endpoint for endpoint in population.endpoints if endpoint not in quiet]
    devices = [endpoint for endpoint in cast if endpoint.is_device] or cast[:1]
    oddities = list(_oddities(rng, population, events))
    for oddity in oddities:
        beats.extend(oddity)
    shuffled: list[Endpoint] = []
    while len(beats) < events:
        # Everybody is sent something before anybody is sent a second thing.
        shuffled = shuffled or rng.sample(cast, len(cast))
        endpoint = shuffled.pop()
        beats.extend(_message(rng, endpoint))
        if chance(rng, 0.25):
            beats.extend(_session(rng, rng.choice(devices)))
    del beats[events:]
    beats.sort(key=lambda beat: beat[0])
    return beats


def _message(rng: Random, endpoint: Endpoint) -> list[Beat]:
    match endpoint.channel:
        case "EMAIL":
            return _mailing(rng, endpoint, rng.choice(("campaign", "campaign", "journey")))
        case "SMS":
            return _texting(rng, endpoint)
        case _:
            return _push(rng, endpoint)


def _later(rng: Random, at: float, least: float, most: float) -> float:
    return min(1.0, at + rng.uniform(least, most))


def _mailing(rng: Random, endpoint: Endpoint, cause: str, *, announced: bool = True) -> list[Beat]:
    """One mail and what comes of it; a campaign's or journey's is announced by the event that names the user."""
    at = rng.uniform(0.0, 0.55)
    beats: list[Beat] = []
    if announced:
        beats.append((at, Draft(f"_{cause}.send", endpoint, cause)))
    at = _later(rng, at, 0.03, 0.05)
    beats.append((at, Draft("_email.send", endpoint, cause, newline=chance(rng, 0.05))))
    at = _later(rng, at, 0.05, 0.12)
    if chance(rng, 0.015):
        kind = rng.choice(("_email.hardbounce", "_email.rendering_failure"))
        beats.append((at, Draft(kind, endpoint, cause)))
        return beats
    if chance(rng, 0.035):
        beats.append((at, Draft("_email.softbounce", endpoint, cause)))
        at = _later(rng, at, 0.02, 0.05)
    beats.append((at, Draft("_email.delivered", endpoint, cause)))
    return beats + _reading(rng, endpoint, cause, at)


def _reading(rng: Random, endpoint: Endpoint, cause: str, at: float) -> list[Beat]:
    if chance(rng, 0.45):
        return []
    beats: list[Beat] = []
    for _ in range(rng.choice((1, 1, 2, 3))):
        at = _later(rng, at, 0.01, 0.1)
        beats.append((at, Draft("_email.open", endpoint, cause, newline=chance(rng, 0.05))))
    for _ in range(rng.choice((0, 0, 1, 1, 2))):
        at = _later(rng, at, 0.002, 0.02)
        beats.append((at, Draft("_email.click", endpoint, cause)))
    if chance(rng, 0.02):
        beats.append((_later(rng, at, 0.01, 0.05), Draft("_email.unsubscribe", endpoint, cause)))
    elif chance(rng, 0.005):
        beats.append((_later(rng, at, 0.01, 0.05), Draft("_email.complaint", endpoint, cause)))
    return beats


def _texting(rng: Random, endpoint: Endpoint) -> list[Beat]:
    at = rng.uniform(0.0, 0.7)
    beats: list[Beat] = [(at, Draft("_campaign.send", endpoint, "campaign"))]
    at = _later(rng, at, 0.08, 0.12)
    beats.append((at, Draft("_SMS.BUFFERED", endpoint, "campaign")))
    at = _later(rng, at, 0.01, 0.05)
    kind = "_SMS.SUCCESS" if chance(rng, 0.94) else "_SMS.FAILURE"
    beats.append((at, Draft(kind, endpoint, "campaign")))
    if chance(rng, 0.02):
        beats.append((_later(rng, at, 0.01, 0.1), Draft("_SMS.OPTOUT", endpoint, "campaign")))
    return beats


def _push(rng: Random, endpoint: Endpoint) -> list[Beat]:
    at = rng.uniform(0.0, 0.65)
    cause = rng.choice(("campaign", "campaign", "journey"))
    beats: list[Beat] = [(at, Draft(f"_{cause}.send", endpoint, cause))]
    at = _later(rng, at, 0.08, 0.14)
    received = rng.choice(("_campaign.received_background", "_campaign.received_foreground"))
    if cause == "campaign" and chance(rng, 0.9):
        beats.append((at, Draft(received, endpoint, cause, names_user=chance(rng, 0.85))))
    if chance(rng, 0.3):
        at = _later(rng, at, 0.01, 0.15)
        beats.append((at, Draft(f"_{cause}.opened_notification", endpoint, cause, names_user=chance(rng, 0.85))))
        beats.extend(_session(rng, endpoint, _later(rng, at, 0.001, 0.002)))
    return beats


_IN_THE_APP = (
    "_session.pause",
    "_session.resume",
    "_inapp.message_clicked",
    "webinar.attended",
    "quiz.finished",
    "_userauth.sign_in",
)


def _session(rng: Random, endpoint: Endpoint, at: float | None = None) -> list[Beat]:
    at = rng.uniform(0.2, 0.9) if at is None else at
    kinds = ["_session.start", *rng.sample(_IN_THE_APP, rng.randrange(3))]
    if chance(rng, 0.12):
        kinds.append("_monetization.purchase")
    if chance(rng, 0.06):
        kinds.append("_userauth.sign_up")
    if chance(rng, 0.8):
        kinds.append("_session.stop")
    beats: list[Beat] = []
    for kind in kinds:
        # The signed-in user is named, if the event contains the endpoint at all.
        beats.append((at, Draft(kind, endpoint, whole=chance(rng, 0.97))))
        at = _later(rng, at, 0.002, 0.02)
    return beats


def _oddities(rng: Random, population: Population, events: int) -> Iterator[list[Beat]]:
    """Yield what is rare in a campaign but must be right all the same: in a fixed share of the events."""
    for endpoint in population.quiet[: max(1, events // 400)]:
        yield _mailing(rng, endpoint, "campaign", announced=False)
    for endpoint in population.nobodies:
        yield _mailing(rng, endpoint, "campaign")
    makers: tuple[tuple[int, Callable[[], list[Beat]]], ...] = (
        (2_400, lambda: _reading_of_a_ghost(rng)),
        (150, lambda: _transactional(rng)),
        (2_400, lambda: _visit(rng)),
        (2_000, lambda: [(rng.random(), Draft("_session.start", _device(rng), project_id=OTHER_PROJECT_ID))]),
        (1_000, lambda: [(rng.random(), Draft(_unheard_of(rng), rng.choice(population.endpoints)))]),
    )
    for share, make in makers:
        for _ in range(max(1, events // share)):
            yield make()
    spoilers = sorted(SPOILERS)
    for number in range(max(len(spoilers), events // 300)):
        yield [(rng.random(), spoilers[number % len(spoilers)])]


def _reading_of_a_ghost(rng: Random) -> list[Beat]:
    """Somebody reads a campaign's mail whose endpoint was deleted since: nobody can say who."""
    ghost = _stranger(rng, "EMAIL")
    return [(rng.random(), Draft(kind, ghost, "campaign")) for kind in ("_email.open", "_email.click")]


def _transactional(rng: Random) -> list[Beat]:
    """A receipt or a new password: its endpoint id is made up for the one mail."""
    return _mailing(rng, _stranger(rng, "EMAIL"), "", announced=False)


def _visit(rng: Random) -> list[Beat]:
    """Somebody uses the app without ever signing in."""
    device, at = _device(rng), rng.uniform(0.0, 0.9)
    return [
        (at, Draft("_session.start", device, whole=chance(rng, 0.5))),
        (min(1.0, at + 0.01), Draft("quiz.finished", device, whole=False)),
    ]


def _unheard_of(rng: Random) -> str:
    return rng.choice(("_email.reply", "_voice.answered", "shop.basket_left"))


def _stranger(rng: Random, channel: str) -> Endpoint:
    address = "guest@example.com" if channel == "EMAIL" else f"{rng.getrandbits(256):064x}"
    return Endpoint(f"{rng.getrandbits(128):032x}", "", channel, address, registered=False)


def _device(rng: Random) -> Endpoint:
    return _stranger(rng, rng.choice(("GCM", "APNS")))
