"""docker-compose.yml without a Docker engine: schema, images, mounts, variables, commands, order, hardening."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import boto3
import click
import pytest

from service.cli.root import scoring
from service.config.load import load
from service.config.settings import FIELDS
from tests.deploy.files import COMPOSE_FILE, DOCKERFILE, ROOT, Yaml, compose_services, interpolated, read_yaml
from tests.fakes.embedded import FreshName

SERVICES = compose_services()
OWN = {name: service for name, service in SERVICES.items() if "build" in service}
RUNS_SCORING = {name for name, service in OWN.items() if service.get("entrypoint", ["scoring"])[-1] == "scoring"}

AWS_VARIABLES = {
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_EC2_METADATA_DISABLED",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_PINPOINT",
}
"""Read by botocore."""

EMULATORS = {"localstack", "ministack"}
NOT_HARDENED = {"localstack"}
"""Starts its servers as root and writes all over its image."""

PROFILES = {"": "localstack", "localstack-less": "ministack", "chaos": "localstack"}
"""What a user may ask for, and the emulator that must then run; nothing asked is what .env says."""


def active(profile: str) -> set[str]:
    if not profile:
        profile = re.search(r"^COMPOSE_PROFILES=(\S+)$", (ROOT / ".env").read_text(encoding="utf-8"), re.MULTILINE)[1]
    return {name for name, service in SERVICES.items() if profile in service.get("profiles", [profile])}


def seconds(duration: str) -> int:
    assert re.fullmatch(r"\d+s", duration)
    return int(duration[:-1])


def test_it_follows_the_compose_specification():
    tool = Path(sys.executable).with_name("check-jsonschema")
    done = subprocess.run(  # noqa: S603 - the tool of this environment
        [tool, "--builtin-schema", "vendor.compose-spec", COMPOSE_FILE], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", SERVICES)
def test_every_image_is_pinned(name: str):
    image = SERVICES[name]["image"]
    assert re.search(r":v?\d+\.\d+\.\d+(-local)?$", image), image


def test_localstack_is_the_last_release_without_a_token():
    assert SERVICES["localstack"]["image"] == "localstack/localstack:4.14.0"


@pytest.mark.parametrize("name", SERVICES)
def test_what_is_mounted_exists(name: str):
    named = read_yaml(COMPOSE_FILE)["volumes"]
    for volume in SERVICES[name].get("volumes", ()):
        source, _, options = volume.split(":", 1)[0], *volume.rpartition(":")[1:]
        if source.startswith("."):
            assert (ROOT / source).exists()
            assert options == "ro"
        else:
            assert source in named


@pytest.mark.parametrize("name", OWN)
def test_every_variable_is_known_to_the_service(name: str):
    environment = SERVICES[name].get("environment", {})
    ours = {key: value for key, value in environment.items() if key.startswith("SCORING_")}
    assert set(environment) - set(ours) <= AWS_VARIABLES
    if ours:
        load(environment)  # names, values and contradictions


def arguments(service: Mapping[str, list[str]]) -> list[str]:
    words = service.get("command", re.findall(r'"(\w+)"', DOCKERFILE.read_text(encoding="utf-8").splitlines()[-1]))
    return [interpolated(word) for word in words]


@pytest.mark.parametrize("name", sorted(RUNS_SCORING))
def test_every_command_is_one_that_the_cli_has(name: str):
    command: click.Command = scoring
    context = click.Context(command, info_name="scoring")
    words = arguments(SERVICES[name])
    while isinstance(command, click.Group):
        found = command.get_command(context, words[0])
        assert found is not None, words
        command, words = found, words[1:]
        context = click.Context(command, parent=context, info_name=command.name)
    command.make_context(command.name, words, parent=context.parent)


@pytest.mark.parametrize(
    "command",
    [
        SERVICES["ministack"]["entrypoint"],
        ["python", f".{SERVICES['chaos-reshard']['entrypoint'][1].replace('/chaos', '/deploy/chaos')}"],
    ],
    ids=["ministack", "chaos-reshard"],
)
def test_every_script_takes_its_options(command: list[str]):
    name = "ministack" if "-m" in command else "chaos-reshard"
    given = {word for word in [*command, *SERVICES[name]["command"]] if word.startswith("--")}
    script = command[1:3] if "-m" in command else command[1:2]
    done = subprocess.run(  # noqa: S603 - our own scripts
        [sys.executable, *script, "--help"], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert given <= set(re.findall(r"--[\w-]+", done.stdout))


def test_events_are_of_the_project_that_is_set_up():
    projects = set()
    for name in ("setup", "pinpoint", "traffic"):
        words = arguments(SERVICES[name])
        projects.add(words[words.index("--project") + 1])
    assert len(projects) == 1


@pytest.mark.parametrize(("profile", "emulator"), PROFILES.items())
def test_exactly_one_emulator_runs_and_answers_to_the_name_that_all_use(profile: str, emulator: str):
    running = active(profile)
    assert running & EMULATORS == {emulator}
    assert SERVICES[emulator]["networks"]["default"]["aliases"] == ["aws"]
    assert running >= {"pinpoint", "setup", "worker", "traffic", "prometheus", "grafana"}
    for name in RUNS_SCORING - {"pinpoint"}:
        assert SERVICES[name]["environment"]["AWS_ENDPOINT_URL"] == "http://aws:4566"


@pytest.mark.parametrize("name", SERVICES)
def test_everything_waits_until_what_it_needs_is_there(name: str):
    for needed, how in SERVICES[name].get("depends_on", {}).items():
        other = SERVICES[needed]
        if how["condition"] == "service_completed_successfully":
            assert other["restart"] == "no"
        else:
            assert how["condition"] == "service_healthy"
            assert "test" in other.get("healthcheck", ()) or needed in OWN  # the image has one
        if "profiles" in other and other["profiles"] != SERVICES[name].get("profiles"):
            assert how["required"] is False


def test_workers_start_after_setup_and_are_two():
    assert SERVICES["worker"]["depends_on"]["setup"]["condition"] == "service_completed_successfully"
    assert SERVICES["worker"]["deploy"]["replicas"] == 2


@pytest.mark.parametrize("name", SERVICES)
def test_ports_are_open_to_this_machine_only(name: str):
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name].get("ports", ()))


def test_no_port_is_taken_twice():
    for profile in PROFILES:
        ports = [port for name in active(profile) for port in SERVICES[name].get("ports", ())]
        assert len(set(ports)) == len(ports)


@pytest.mark.parametrize("name", sorted(set(SERVICES) - NOT_HARDENED))
def test_containers_may_do_no_more_than_they_must(name: str):
    service: Yaml = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["init"] is True
    assert "/tmp" in service["tmpfs"]  # noqa: S108 - inside the container
    assert "privileged" not in service


@pytest.mark.parametrize("name", ["worker", "chaos-worker"])
def test_a_worker_is_given_longer_than_its_drain(name: str):
    environment = SERVICES[name]["environment"]
    drain = float(environment.get("SCORING_DRAIN_TIMEOUT_S", FIELDS["drain_timeout_s"].default))
    assert seconds(SERVICES[name]["stop_grace_period"]) > drain


@pytest.mark.parametrize("name", SERVICES)
def test_every_region_is_given_under_both_names(name: str):
    """boto3 reads AWS_DEFAULT_REGION, this service and other SDKs AWS_REGION."""
    environment = SERVICES[name].get("environment", {})
    assert environment.get("AWS_REGION") == environment.get("AWS_DEFAULT_REGION")


def test_prometheus_may_write_its_own_directory():
    """A tmpfs belongs to root with the mode of the directory it hides; the image runs as nobody (65534)."""
    written = "/prometheus"
    assert f"--storage.tsdb.path={written}" in SERVICES["prometheus"]["command"]
    assert f"{written}:uid=65534,gid=65534" in SERVICES["prometheus"]["tmpfs"]


def test_localstack_is_healthy_only_once_kinesis_answers():
    assert "ListStreams" in SERVICES["localstack"]["healthcheck"]["test"][1]
    assert SERVICES["localstack"]["environment"]["KINESIS_PERSISTENCE"] == "0"


def test_grafana_finds_every_folder_of_its_provisioning():
    """It logs an error at each start for a folder that is missing (https://grafana.com/docs/grafana/latest/administration/provisioning/)."""
    folder = ROOT / "deploy" / "grafana" / "provisioning"
    assert {each.name for each in folder.iterdir()} == {"alerting", "dashboards", "datasources", "plugins"}
    assert all(any(each.iterdir()) for each in folder.iterdir())


def test_the_reshards_of_the_chaos_profile_are_real(aws_environment: dict[str, str], fresh_name: FreshName):
    kinesis = boto3.client("kinesis")
    stream = fresh_name("chaos")
    kinesis.create_stream(StreamName=stream, ShardCount=4)
    environment = {**os.environ, **aws_environment}
    environment.pop("AWS_DEFAULT_REGION", None)  # the script must do with AWS_REGION, as the service does
    done = subprocess.run(  # noqa: S603 - our own script
        [sys.executable, "deploy/chaos/reshard.py", "--stream", stream, "--every", "0.1", "--times", "2"],
        env=environment | {"AWS_REGION": "us-east-1"},
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    assert done.stdout == "resharding from 4 to 8\nresharding from 8 to 4\n"
    assert kinesis.describe_stream_summary(StreamName=stream)["StreamDescriptionSummary"]["OpenShardCount"] == 4
