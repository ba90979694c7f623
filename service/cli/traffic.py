"""`scoring local traffic`: endless campaigns for an emulator."""

from __future__ import annotations

import os
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from types import FrameType

import click
import msgspec

from service.aws.endpoints import is_aws
from service.cli.context import settings_for
from service.cli.failures import Failure
from service.cli.output import note
from service.cli.params import PROJECT
from service.config.load import Purpose

LINE_EVERY_S = 10.0
TICK_S = 0.5
TIMEOUT_S = 5.0


@click.command()
@click.option("--rate", type=click.FloatRange(0.1, 10_000), default=20, show_default=True, help="Records per second.")
@click.option("--users", type=click.IntRange(10, 50_000), default=1_000, show_default=True, help="People.")
@click.option("--seed", type=int, default=1, show_default=True, help="Decides the people and the campaigns.")
@click.option(
    "--project",
    metavar="ID",
    type=PROJECT,
    help="Project of the events. Default: SCORING_PROJECT_IDS, or else the demo's project.",
)
def traffic(rate: float, users: int, seed: int, project: str | None) -> None:
    """Play endless campaigns to the stream, until SIGTERM or SIGINT.

    Works with emulators only: AWS_ENDPOINT_URL_KINESIS and AWS_ENDPOINT_URL_PINPOINT (or AWS_ENDPOINT_URL) must be set.
    Creates the people's endpoints in that Pinpoint first.
    """
    from service.aws.blocking import client_in  # noqa: PLC0415 # slow to import
    from service.local.local_aws import LocalAwsError, settle  # noqa: PLC0415 # likewise
    from service.local.playback import Playback, PlaybackError  # noqa: PLC0415 # keeps `--help` quick
    from service.local.population import PROJECT_ID, populate  # noqa: PLC0415 # likewise
    from service.local.traffic import Meaning, stream  # noqa: PLC0415 # likewise

    settings = settings_for(Purpose.STREAM)
    pinpoint_url = _emulator("PINPOINT")
    _emulator("KINESIS")
    only = settings.project_ids[0] if len(settings.project_ids) == 1 else PROJECT_ID
    project_id = project or only
    population = populate(users, seed)
    signal.signal(signal.SIGTERM, _end)
    _create_project(pinpoint_url, project_id)
    # No retries: a record that is put again because an answer was lost is a second record, and counts.
    environment = {**os.environ, "AWS_REGION": settings.aws_region}
    kinesis = client_in("kinesis", environment)
    try:
        settle(client_in("pinpoint", environment, attempts=5), population, project_id)
        note(f"{len(population.everything):,} endpoints of {users:,} users created; {rate:g} events per second follow")
        note(
            "some records are malformed and some endpoints have no user, on purpose: the alerts "
            "ScoringDeadLettersGrowing, ScoringUnknownFormatsGrowing and ScoringUnresolvedUsersGrowing fire by design"
        )

        def ignore(_: Sequence[Meaning]) -> None: ...

        records = stream(population, seed, rate)
        with Playback(kinesis, settings.stream, records, ignore, project_id=project_id) as playback:
            line_at = time.monotonic() + LINE_EVERY_S
            while not playback.done:
                time.sleep(TICK_S)
                if time.monotonic() >= line_at:
                    line_at += LINE_EVERY_S
                    note(f"{playback.put:,} events put")
    except (PlaybackError, LocalAwsError) as error:
        raise Failure(
            "the traffic cannot be played", str(error), "is the emulator running, and `scoring setup` done?"
        ) from error
    except KeyboardInterrupt:
        note("interrupted")


def _emulator(service: str) -> str:
    name = f"AWS_ENDPOINT_URL_{service}"
    url = os.environ.get(name) or os.environ.get("AWS_ENDPOINT_URL")
    if not url:
        raise Failure(
            "generated traffic is for emulators only", f"{name} is not set", f"set {name} to the URL of an emulator"
        )
    if is_aws(url):
        raise Failure(
            "generated traffic is for emulators only",
            f"{name} = {url!r} is AWS",
            f"set {name} to the URL of an emulator",
        )
    return url


def _create_project(pinpoint_url: str, project_id: str) -> None:
    """Create the project if this Pinpoint is our fake; another emulator must already have it."""
    body = msgspec.json.encode({"Id": project_id})
    try:
        urllib.request.urlopen(f"{pinpoint_url}/_fake/apps", body, timeout=TIMEOUT_S).close()  # noqa: S310 - a URL the user set
    except urllib.error.HTTPError:
        pass  # the project exists, or this is not our fake: creating the endpoints will show
    except OSError as error:
        raise Failure(
            "Pinpoint cannot be reached", f"{pinpoint_url}: {error}", "check AWS_ENDPOINT_URL_PINPOINT"
        ) from error


def _end(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
