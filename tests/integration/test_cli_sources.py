"""One's own sources, from a file to scores, on the embedded AWS."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from service.cli.root import scoring
from service.local.worker_process import WorkerProcess
from tests.fakes.embedded import FreshName

SAMPLES = Path(__file__).parents[1] / "samples"
GUIDE = Path(__file__).parents[2] / "deploy/docs/sources.md"
SHOP = GUIDE.read_text(encoding="utf-8").partition("```yaml\n")[2].partition("```")[0]
"""The example of the guide."""

Cli = Callable[..., Result]


@pytest.fixture
def names(fresh_name: FreshName) -> dict[str, str]:
    return {
        "SCORING_STREAM": fresh_name("events"),
        "SCORING_SCORES_TABLE": fresh_name("scores"),
        "SCORING_DEFINITIONS_TABLE": fresh_name("definitions"),
        "SCORING_IDENTITIES_TABLE": fresh_name("identities"),
        "SCORING_LEASES_TABLE": fresh_name("leases"),
        "SCORING_DEAD_LETTERS_TABLE": fresh_name("letters"),
        "SCORING_PROJECT_IDS": "shop",
        "SCORING_DEFAULT_PROJECT": "shop",
        "SCORING_SINKS": "log",
        "SCORING_DEFINITIONS_REFRESH_S": "0.5",
        "SCORING_LEASE_DURATION_S": "5",
    }


@pytest.fixture
def cli(aws_environment: dict[str, str], names: dict[str, str]) -> Cli:
    def invoke(*args: str, text: str | None = None, code: int | None = 0) -> Result:
        result = CliRunner().invoke(scoring, args, input=text, env={**aws_environment, **names})
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert code is None or result.exit_code == code, result.output
        return result

    return invoke


@pytest.fixture
def shop(tmp_path: Path) -> str:
    path = tmp_path / "shop.yml"
    path.write_text(SHOP, encoding="utf-8")
    return str(path)


@pytest.fixture
def worker(aws_environment: dict[str, str], names: dict[str, str], tmp_path: Path) -> Iterator[WorkerProcess]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("SCORING_", "AWS_"))}
    worker = WorkerProcess({**inherited, **aws_environment, **names}, tmp_path / "worker.log")
    yield worker
    worker.kill()


def test_the_example_of_the_guide_is_right_and_reads_the_sample(cli: Cli, shop: str, tmp_path: Path):
    assert "is right: 1 source" in cli("sources", "validate", shop).stderr
    order = tmp_path / "order.json"
    order.write_bytes((SAMPLES / "custom.jsonl").read_bytes().splitlines()[0])
    assert "1 event: 1 recognised" in cli("sources", "test", shop, str(order)).stderr
    found = json.loads(cli("dry-run", str(order), "--sources", shop, "--json").stdout)
    (event,) = found["events"]
    assert (event["source"], event["event_type"], event["person"]) == ("shop", "order.placed", "u-1")
    assert event["also"] == ["e-mail address ada@example.org"]
    assert found["summary"]["events"] == 1


def test_faults_name_file_line_and_path_and_nothing_is_written(cli: Cli, tmp_path: Path):
    bad = tmp_path / "bad.yml"
    bad.write_text("sources:\n  - name: shop\n    whenn: {type: order}\n", encoding="utf-8")
    assert f"{bad}:3: sources[0]: 'whenn' is not known here" in cli("sources", "validate", str(bad), code=1).stdout
    cli("setup", "--project", "shop")
    cli("sources", "apply", str(bad), code=2)
    listed = json.loads(cli("sources", "list", "--json").stdout)
    assert [each["name"] for each in listed if each["kind"] == "own"] == []
    assert "scoring sources list" in cli("sources", "remove", "shop", code=1).output


def test_a_dry_run_of_an_unknown_event_says_what_it_holds(cli: Cli):
    result = cli("dry-run", "-", text='{"hello": "world"}\n', code=1)
    assert "unknown_format" in result.stdout
    assert "it has hello" in result.stdout


def test_an_unknown_event_counts_once_redriven_after_sources_apply(cli: Cli, shop: str, worker: WorkerProcess):
    cli("setup", "--project", "shop")
    cli("definitions", "set", "order.placed", "25", "--project", "shop")
    order = (SAMPLES / "custom.jsonl").read_text(encoding="utf-8").splitlines()[0]
    worker.start()
    cli("send", "-", text=order + "\n")
    until(lambda: "unknown_format" in cli("dead-letters", "list").stdout)
    assert "shop: new" in cli("sources", "apply", shop).stdout
    assert "shop: replaced" in cli("sources", "apply", shop).stdout
    assert [each["name"] for each in json.loads(cli("sources", "list", "--json").stdout)][:2] == ["shop", "pinpoint"]
    assert "name: shop" in cli("sources", "show", "shop").stdout
    deployed = json.loads(cli("dry-run", "-", "--deployed", "--json", text=order + "\n").stdout)
    assert deployed["events"][0]["points"] == 25
    time.sleep(1)  # two readings of the sources by another process
    cli("dead-letters", "redrive", "--reason", "unknown_format", "--yes")
    until(lambda: "25" in cli("scores", "get", "u-1", code=None).stdout)
    # From that event on, the address is known to be the user's.
    cli("send", "-", text=order.replace('"id": "u-1", ', "").replace('"o-1"', '"o-2"') + "\n")
    until(lambda: "50" in cli("scores", "get", "u-1").stdout)
    assert worker.stop() == 0


def until(done: Callable[[], bool]) -> None:
    ends = time.monotonic() + 60
    while not done():
        assert time.monotonic() < ends
        time.sleep(0.2)  # another process cannot be awaited
