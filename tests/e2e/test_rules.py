"""Rules with a worker process, as a person applies, changes and asks for them."""

from __future__ import annotations

import json
import os
import re
import time
import urllib.request
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from service.local.worker_process import WorkerProcess
from tests.e2e.site import Site, settles
from tests.e2e.target import choose

RULES = """\
project: {project}
groups: {{email: {{half_life: 30d, max: 100}}}}
tiers: [{{name: hot, enter: 90, leave: 80}}]
rules:
  - {{id: click, on: _email.click, points: {points}, group: email, cap: {{per: day, events: 3}}}}
  - {{id: visit, on: e2e.visit, points: 7, when: [{{path: attributes.campaign_id, op: exists}}]}}
"""
FOLLOWED_S = 15.0
"""Within how many seconds the version in force must be the one applied; promised are 10."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with Site(choose(os.environ), tmp_path_factory.mktemp("e2e-rules")) as site:
        yield site
        site.remove()


@pytest.fixture(scope="module")
def worker(site: Site) -> Iterator[WorkerProcess]:
    worker = site.worker()
    try:
        yield worker
        assert worker.stop() == 0
    finally:
        worker.kill()


def version(worker: WorkerProcess) -> int:
    with urllib.request.urlopen(f"{worker.url}/metrics", timeout=5) as answer:  # noqa: S310 - our own http URL
        text = answer.read().decode()
    found = re.search(r"^scoring_rules_version\{[^}]*\} ([0-9.]+)", text, re.MULTILINE)
    return int(float(found[1])) if found else 0


def apply(site: Site, path: Path, points: int, *options: str) -> None:
    path.write_text(RULES.format(project=site.project, points=points))
    site.scoring("rules", "apply", str(path), *options)


def explained(site: Site, user: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(site.scoring("scores", "explain", user, "--project", site.project, "--json"))
    return found


def test_rules_are_followed_changed_and_explained(site: Site, worker: WorkerProcess, tmp_path: Path):
    site.settle({"ann-mail": "ann"})
    site.send([site.event("_email.open", "ann-mail", "ann")])
    settles(lambda: site.scores(["ann"]), {"ann": Decimal(10)}, site.within_s)

    apply(site, tmp_path / "rules.yml", 40)
    settles(lambda: version(worker), 1, FOLLOWED_S)
    clicks = [site.event("_email.click", "ann-mail", "ann")] * 4
    site.send([*clicks, site.event("e2e.visit", "ann-mail", "ann"), site.event("_email.open", "ann-mail", "ann")])
    # 10 from before, 100 of 3 x 40 clicks, 7 for the visit, 10 by the definition of an open.
    settles(lambda: site.scores(["ann"]), {"ann": Decimal(127)}, site.within_s)
    found = explained(site, "ann")
    assert (found["score"], found["tier"], found["version"]) == (127, "hot", 1)
    assert found["caps"] == [{"rule_id": "click", "window": "day", "used": 3, "limit": 3, "reached": True}]
    settles(lambda: site.published(["ann"]), {"ann": "127"}, site.within_s)

    apply(site, tmp_path / "rules.yml", 10, "--retroactive")
    settles(lambda: version(worker), 2, FOLLOWED_S)
    assert explained(site, "ann")["score"] == 57
    swept = json.loads(site.scoring("sweep", "--json"))
    assert swept["written"] == 1
    settles(lambda: site.published(["ann"]), {"ann": "57"}, site.within_s)

    for _ in range(2):
        site.scoring("scores", "adjust", "ann", "-7", "--reason", "e2e", "--id", "a1", "--project", site.project)
    site.send([site.event("e2e.visit", "ann-mail", "ann")])
    settles(lambda: site.scores(["ann"]), {"ann": Decimal(57)}, site.within_s)
    time.sleep(2)
    assert site.scores(["ann"]) == {"ann": Decimal(57)}, "the second adjustment of the same id counts nothing"
