"""The filled-in settings: the script takes them, the templates take their values, and they do what their heads say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from service.config.load import load as settings_load
from tests.deploy.script import Deploy
from tests.deploy.templates import FOLDER, STREAM, Stack, load

SAMPLES = FOLDER.parent / "samples"
STACKS = ("data", "network", "service", "prometheus")
OWN_NAMES = {"StackPrefix", "Region"}


def settings_of(name: str) -> dict[str, str]:
    lines = (SAMPLES / f"{name}.conf").read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def stack(kind: str, sample: str, **outputs: str) -> Stack:
    known = load(kind)["Parameters"]
    given = {key: value for key, value in (settings_of(sample) | outputs).items() if key in known}
    return Stack(kind, **given)


def task(sample: str) -> dict[str, str]:
    made = stack("service", sample, StreamArn=settings_of(sample).get("ExistingStreamArn", STREAM))
    (container,) = made.resources["TaskDefinition"]["Properties"]["ContainerDefinitions"]
    return {item["Name"]: item["Value"] for item in container["Environment"]}


def resources(sample: str) -> set[str]:
    """What the task's role is allowed anything on."""
    made = stack("service", sample, StreamArn=settings_of(sample).get("ExistingStreamArn", STREAM))
    (policy,) = made.resources["TaskRole"]["Properties"]["Policies"]
    found = [each["Resource"] for each in policy["PolicyDocument"]["Statement"]]
    return {each for listed in found for each in (listed if isinstance(listed, list) else [listed])}


@pytest.mark.parametrize("sample", ["without-pinpoint", "dry-run"])
def test_a_sample_is_complete_and_its_values_fit_the_template(sample: str, tmp_path: Path):
    given = settings_of(sample)
    parameters = {key: spec for kind in STACKS for key, spec in load(kind)["Parameters"].items()}
    assert set(given) - OWN_NAMES <= set(parameters)
    for name, value in given.items():
        spec = parameters.get(name, {})
        assert re.fullmatch(spec.get("AllowedPattern", ".*"), value), name
        assert value in map(str, spec.get("AllowedValues", [value])), name
    deploy = Deploy(tmp_path)
    deploy.settings.write_text((SAMPLES / f"{sample}.conf").read_text(encoding="utf-8"))
    deploy.answer({"describe-stacks OutputKey": (0, f"StreamArn\t{STREAM}"), "describe-stacks": (0, "CREATE_COMPLETE")})
    for kind in ("data", "service", *(("network",) if "RouteTableIds" in given else ())):
        ended = deploy("plan", kind)
        assert ended.returncode == 0, ended.stderr


def test_without_pinpoint_nothing_of_pinpoint_is_made_called_or_allowed():
    settings = settings_load(task("without-pinpoint"))
    assert settings.sinks == ("log",)
    assert settings.project_ids == ("acme-shop", "acme-app")
    assert not settings.identity_lookup
    assert not any("mobiletargeting" in each for each in resources("without-pinpoint"))
    for kind in ("data", "network"):
        made = stack(kind, "without-pinpoint")
        assert not any("Pinpoint" in item["Type"] for item in made.resources.values())
        services = [str(item.get("ServiceName")) for item in made.of_type("AWS::EC2::VPCEndpoint").values()]
        assert not any("pinpoint" in service for service in services)


def test_a_dry_run_reads_production_and_writes_to_its_own_tables_only():
    environment = task("dry-run")
    settings = settings_load(environment)
    assert settings.ingests
    assert not settings.publishes
    written = {settings.scores_table, settings.identities_table, settings.leases_table, settings.dead_letters_table}
    assert all(name.startswith("engagementDryRun") for name in written)
    own = {each for each in resources("dry-run") if "/engagementDryRun" in each}
    (stream, definitions) = sorted(resources("dry-run") - own, key=lambda each: "table" in each)
    assert stream == settings_of("dry-run")["ExistingStreamArn"]
    assert definitions.endswith("table/engagementScoreDefinition")
    made = stack("data", "dry-run")
    assert "Stream" not in made.resources
    assert "DefinitionsTable" not in made.resources
    assert not any("DeletionProtectionEnabled" in str(each) and each.get("DeletionProtectionEnabled") == "true"
                   for each in made.of_type("AWS::DynamoDB::Table").values())  # fmt: skip
    assert "Namespace" not in stack("service", "dry-run", StreamArn=STREAM).resources
