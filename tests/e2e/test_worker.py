"""The service as a person runs it, process by process, on any AWS: `make e2e` (see `target` for which)."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from service.local.worker_process import WorkerProcess
from tests.e2e.site import Site, settles
from tests.e2e.target import Kind, choose

SAMPLES = Path(__file__).parents[1] / "samples" / "pinpoint-events.jsonl"
SAMPLE_PROJECT = "5f0c2d9e8b7a4c61a3d2e1f0b9c8a7d6"
SAMPLE_SCORES = {
    # 2 campaign.send, 2 delivered, 2 x 10 open, 50 click, -500 unsubscribe; through Pinpoint: 2 SMS, -500 opt-out
    "user-pat": Decimal(-924),
    # 2 campaign.send, 50 opened, 2 + 2 received, 2 session, 50 sign-up, 100 purchase
    "user-sam": Decimal(208),
    # 2 campaign.send, -1000 hard bounce
    "user-kim": Decimal(-998),
}
ONE_KEY: dict[str, Any] = {
    "AttributeDefinitions": [{"AttributeName": "Id", "AttributeType": "S"}],
    "KeySchema": [{"AttributeName": "Id", "KeyType": "HASH"}],
    "BillingMode": "PAY_PER_REQUEST",
}
VISIT = "e2e.visit"
FOLLOWED_S = 10.0
"""A changed definition counts for every event sent this long after the change."""
NEW_POINTS = 1_000_000

_numbers = count(1)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The suite's own stream, tables and project, made by `scoring setup`. In the end they are gone, and only they."""
    target = choose(os.environ)
    with Site(target, tmp_path_factory.mktemp("e2e")) as site:
        others = f"{site.stream}-others"
        if target.kind is Kind.EMBEDDED:
            site.kinesis.create_stream(StreamName=others, ShardCount=1)
            site.dynamodb.create_table(TableName=others, **ONE_KEY)
        # Before any worker: one that runs would not count the first visits.
        site.define(VISIT, 1)
        yield site
        site.remove()
        if target.kind is Kind.EMBEDDED:
            assert site.kinesis.list_streams()["StreamNames"] == [others]
            assert site.dynamodb.list_tables()["TableNames"] == [others]


@pytest.fixture(scope="module")
def expected() -> dict[str, Decimal]:
    """Every score so far, by user."""
    return {}


class Fleet:
    """The workers that run, each one a process: a test that needs one takes what the test before it left."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self.workers: list[WorkerProcess] = []

    def grow(self, number: int) -> list[WorkerProcess]:
        """Return the workers there are, at least `number`."""
        while len(self.workers) < number:
            self.workers.append(self._site.worker())
        return list(self.workers)

    def stop(self, worker: WorkerProcess) -> None:
        """SIGTERM: it must exit with 0."""
        self.workers.remove(worker)
        assert worker.stop() == 0

    def kill(self, worker: WorkerProcess) -> None:
        """SIGKILL."""
        self.workers.remove(worker)
        worker.kill()

    def shards(self) -> list[int]:
        """Return how many shards of the stream each worker reads."""
        return [(worker.look() or worker.last).shards.get("ingest", 0) for worker in self.workers]


@pytest.fixture(scope="module")
def fleet(site: Site, expected: dict[str, Decimal]) -> Iterator[Fleet]:
    """The workers. In the end they have stopped, and every score is still what it has to be."""
    fleet = Fleet(site)
    try:
        yield fleet
        for worker in list(fleet.workers):
            fleet.stop(worker)
        assert site.scores(expected) == expected
    finally:
        for worker in fleet.workers:
            worker.kill()


def people(number: int) -> list[str]:
    """Return ids that no other test uses; `<id>-mail` is the endpoint."""
    return [f"user-{next(_numbers):04d}" for _ in range(number)]


def traffic(site: Site, users: list[str], expected: dict[str, Decimal]) -> list[str]:
    """Return three to five events for each of `users`, and add what they are worth.

    Only the first names its user: whose the others are is learned from it.
    """
    events = []
    for index, user in enumerate(users):
        opens = 1 + index % 3
        events.append(site.event("_session.start", f"{user}-mail", user))
        events += [site.event("_email.open", f"{user}-mail")] * opens
        events.append(site.event("_email.click", f"{user}-mail"))
        expected[user] = expected.get(user, Decimal(0)) + 2 + 10 * opens + 50
    return events


def test_events_become_scores_and_dead_letters_and_are_published(
    site: Site, fleet: Fleet, expected: dict[str, Decimal]
):
    users = people(80)
    site.settle({"sms-pat": "user-pat", "sam-mail": "user-sam"} | {f"{user}-mail": user for user in users})
    samples = SAMPLES.read_text(encoding="utf-8").replace(SAMPLE_PROJECT, site.project).splitlines()
    site.send([*samples, *traffic(site, users, expected), "no event", "7"])
    expected |= SAMPLE_SCORES
    fleet.grow(1)
    settles(lambda: site.scores(expected), expected, site.within_s)
    shown = {user: f"{score}" for user, score in expected.items() if user != "user-kim"}
    settles(lambda: site.published(shown), shown, site.within_s)
    for user in ("user-pat", users[-1]):
        (score,) = json.loads(site.scoring("scores", "get", user, "--json"))
        assert (score["project_id"], score["score"]) == (site.project, expected[user])
    site.scoring("scores", "get", "nobody", code=1)
    letters = Counter((letter["reason"], letter["partition_key"]) for letter in site.letters())
    assert Counter(reason for reason, _ in letters.elements()) == {
        "unresolved_user": 1,
        "not_json": 1,
        "not_an_object": 1,
    }
    assert letters["unresolved_user", "email-sam"] == 1  # `email-nouser` states that it has no user


def test_sigterm_exits_0_and_a_second_worker_goes_on(site: Site, fleet: Fleet, expected: dict[str, Decimal]):
    users = people(20)
    first = fleet.grow(1)[0]
    site.send(traffic(site, users, expected))
    settles(lambda: len(site.scores(users)) > 0, wanted=True, within_s=site.within_s)
    fleet.stop(first)
    site.send(traffic(site, users, expected))
    fleet.grow(1)
    settles(lambda: site.scores(expected), expected, site.within_s)
    settles(fleet.shards, [site.open_shards()], site.within_s)


def test_a_killed_worker_is_taken_over(site: Site, fleet: Fleet, expected: dict[str, Decimal]):
    users = people(20)
    fleet.grow(2)
    shards = site.open_shards()
    settles(lambda: sorted(fleet.shards()), [shards // 2, shards - shards // 2], site.within_s)
    site.send(traffic(site, users, expected))
    settles(lambda: len(site.scores(users)) > 0, wanted=True, within_s=site.within_s)
    fleet.kill(max(zip(fleet.shards(), fleet.workers, strict=True), key=lambda held: held[0])[1])
    site.send(traffic(site, users, expected))
    settles(lambda: site.scores(expected), expected, site.within_s)
    settles(fleet.shards, [shards], site.within_s)


def test_a_changed_definition_is_followed_within_ten_seconds(site: Site, fleet: Fleet, expected: dict[str, Decimal]):
    (user,) = people(1)
    sent: list[float] = []

    def score() -> int:
        return int(site.scores([user]).get(user, 0))

    def score_after_a_visit() -> int:
        visit = site.event(VISIT, f"{user}-mail", user)
        site.kinesis.put_record(StreamName=site.stream, PartitionKey=user, Data=visit.encode())
        sent.append(time.monotonic())
        return score()

    fleet.grow(1)
    settles(lambda: score_after_a_visit() > 0, wanted=True, within_s=site.within_s)
    site.define(VISIT, NEW_POINTS)
    changed_at = time.monotonic()
    settles(lambda: score_after_a_visit() >= NEW_POINTS, wanted=True, within_s=FOLLOWED_S + site.within_s)
    settles(lambda: sum(divmod(score(), NEW_POINTS)), len(sent), site.within_s)
    expected[user] = Decimal(score())
    before = score() % NEW_POINTS
    assert sent[before - 1] < changed_at + FOLLOWED_S


def test_an_unresolved_letter_is_redriven_once_its_user_is_known(
    site: Site, fleet: Fleet, expected: dict[str, Decimal]
):
    (user,) = people(1)
    endpoint = f"{user}-mail"
    fleet.grow(1)
    before = site.letter_count()
    site.send([site.event("_email.click", endpoint)])

    def letters() -> list[tuple[str, str]]:
        found = site.letters("--reason", "unresolved_user")
        return [(letter["id"], letter["state"]) for letter in found if letter["partition_key"] == endpoint]

    settles(site.letter_count, before + 1, site.within_s)
    ((letter_id, state),) = letters()
    assert state == "new"
    site.send([site.event("_session.start", endpoint, user)])
    settles(lambda: site.scores([user]), {user: Decimal(2)}, site.within_s)
    (result,) = json.loads(site.scoring("dead-letters", "redrive", "--id", letter_id, "--yes", "--json"))
    assert (result["letter_id"], result["outcome"]) == (letter_id, "redriven")
    expected[user] = Decimal(52)
    settles(lambda: site.scores([user]), {user: Decimal(52)}, site.within_s)
    assert letters() == [(letter_id, "redriven")]
