import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import ClassVar

import pytest
from cfnlint.api import lint_file

from service.admin.setup_plan import Names, tables
from service.config.load import load as settings_load
from service.config.settings import VARIABLES, Settings
from service.local.webhook_fake.credentials import SIGNING_SECRET
from tests.deploy.templates import DIGEST, FOLDER, Stack, load, service, text

TEMPLATES = sorted(path.stem for path in FOLDER.glob("*.yml"))
BODY_LIMIT = 51_200
"""Bytes of a template passed as text
(https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/cloudformation-limits.html)."""

EXTRAS = 12
"""Variables that the parameter ExtraVariables takes."""


@pytest.mark.parametrize("name", TEMPLATES)
def test_cfn_lint_finds_nothing(name: str):
    assert lint_file(FOLDER / f"{name}.yml") == []


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_can_be_passed_as_text(name: str):
    assert len(text(name).encode()) < BODY_LIMIT


@pytest.mark.parametrize("name", TEMPLATES)
def test_every_parameter_is_used_and_bounded(name: str):
    template = load(name)
    for key, spec in template["Parameters"].items():
        if spec["Type"] == "String":
            assert "AllowedPattern" in spec or "AllowedValues" in spec, key


class TestData:
    DATA = Stack("data")

    def test_tables_have_the_keys_and_ttl_that_setup_makes(self):
        made = {
            properties["TableName"]: properties for properties in self.DATA.of_type("AWS::DynamoDB::Table").values()
        }
        settings = Settings()
        names = Names(
            stream="",
            scores=settings.scores_table,
            definitions=settings.definitions_table,
            identities=settings.identities_table,
            leases=settings.leases_table,
            dead_letters=settings.dead_letters_table,
        )
        specs = tables(names)
        assert set(made) == {spec.name for spec in specs}
        for spec in specs:
            table = made[spec.name]
            assert tuple(key["AttributeName"] for key in table["KeySchema"]) == spec.keys
            assert [key["KeyType"] for key in table["KeySchema"]] == ["HASH", "RANGE"][: len(spec.keys)]
            assert {
                item["AttributeName"]: item["AttributeType"] for item in table["AttributeDefinitions"]
            } == dict.fromkeys(spec.keys, "S")
            assert table.get("TimeToLiveSpecification", {}).get("AttributeName", "") == spec.ttl
            assert ("StreamSpecification" in table) == spec.streamed

    def test_what_is_stored_outlives_the_stack(self):
        kept = [item for item in self.DATA.resources.values() if item["Type"] != "AWS::IAM::Role"]
        assert len(kept) == 6
        assert {(item["DeletionPolicy"], item["UpdateReplacePolicy"]) for item in kept} == {("Retain", "Retain")}

    def test_tables_are_protected_encrypted_and_recoverable(self):
        for table in self.DATA.of_type("AWS::DynamoDB::Table").values():
            assert table["BillingMode"] == "PAY_PER_REQUEST"
            assert table["DeletionProtectionEnabled"] == "true"
            assert table["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}
            assert table["SSESpecification"] == {"SSEEnabled": True, "SSEType": "KMS"}

    def test_the_score_table_streams_both_images(self):
        scores = self.DATA.resources["ScoresTable"]["Properties"]
        assert scores["StreamSpecification"] == {"StreamViewType": "NEW_AND_OLD_IMAGES"}

    def test_the_stream_takes_what_comes_encrypted_and_keeps_it_a_week(self):
        stream = self.DATA.resources["Stream"]["Properties"]
        assert stream["StreamModeDetails"] == {"StreamMode": "ON_DEMAND"}
        assert "ShardCount" not in stream
        assert stream["StreamEncryption"] == {"EncryptionType": "KMS", "KeyId": "alias/aws/kinesis"}
        assert stream["RetentionPeriodHours"] >= 7 * 24
        assert load("data")["Parameters"]["RetentionHours"]["MinValue"] >= 7 * 24

    def test_a_provisioned_stream_has_its_shards(self):
        stream = Stack("data", StreamMode="PROVISIONED", ShardCount="3").resources["Stream"]["Properties"]
        assert stream["ShardCount"] == "3"

    def test_an_own_key_encrypts_everything(self):
        key = "arn:aws:kms:us-east-1:123456789012:key/00000000-0000-0000-0000-000000000000"
        stack = Stack("data", KmsKeyArn=key)
        assert stack.resources["Stream"]["Properties"]["StreamEncryption"]["KeyId"] == key
        assert {t["SSESpecification"]["KMSMasterKeyId"] for t in stack.of_type("AWS::DynamoDB::Table").values()} == {
            key
        }

    def test_pinpoint_is_off_by_default(self):
        assert not any(
            "Pinpoint" in item["Type"] or item["Type"] == "AWS::IAM::Role" for item in self.DATA.resources.values()
        )
        assert {"PinpointRole", "PinpointEventStream"} <= set(
            Stack("data", PinpointEventStreamProjectId="0a").resources
        )

    def test_what_exists_is_not_made_again(self):
        arn = "arn:aws:kinesis:us-east-1:123456789012:stream/theirs"
        stack = Stack("data", ExistingStreamArn=arn, UseExistingScoresTable="true", UseExistingDefinitionsTable="true")
        assert not {"Stream", "ScoresTable", "DefinitionsTable"} & set(stack.resources)
        assert stack.resolve(stack.template["Outputs"]["StreamArn"]["Value"]) == arn

    def test_every_output_is_a_parameter_of_the_service(self):
        assert set(load("data")["Outputs"]) <= set(load("service")["Parameters"])


def environment(**parameters: str) -> dict[str, str]:
    """The container's environment."""
    definition = service(**parameters).resources["TaskDefinition"]["Properties"]["ContainerDefinitions"][0]
    names = [item["Name"] for item in definition["Environment"]]
    assert len(set(names)) == len(names)
    return {item["Name"]: item["Value"] for item in definition["Environment"]}


class TestTask:
    STACK = service()
    TASK = STACK.resources["TaskDefinition"]["Properties"]
    CONTAINER = TASK["ContainerDefinitions"][0]
    ENVIRONMENT: ClassVar[Mapping[str, str]] = {item["Name"]: item["Value"] for item in CONTAINER["Environment"]}

    def test_it_is_a_small_fargate_task(self):
        assert self.TASK["RequiresCompatibilities"] == ["FARGATE"]
        assert (self.TASK["Cpu"], self.TASK["Memory"]) == ("256", "512")
        assert self.TASK["RuntimePlatform"] == {"CpuArchitecture": "ARM64", "OperatingSystemFamily": "LINUX"}
        assert (
            service(CpuArchitecture="X86_64").resources["TaskDefinition"]["Properties"]["RuntimePlatform"][
                "CpuArchitecture"
            ]
            == "X86_64"
        )

    def test_the_image_is_pinned_by_digest(self):
        assert self.CONTAINER["Image"].endswith(f"@{DIGEST}")
        pattern = load("service")["Parameters"]["ImageDigest"]["AllowedPattern"]
        assert re.fullmatch(pattern, DIGEST)
        assert not re.fullmatch(pattern, "latest")

    def test_it_is_nobody_and_writes_nowhere_but_tmp(self):
        user, _, group = self.CONTAINER["User"].partition(":")
        assert int(user) > 0
        assert int(group) > 0
        assert self.CONTAINER["ReadonlyRootFilesystem"] is True
        linux = self.CONTAINER["LinuxParameters"]
        assert linux["Capabilities"] == {"Drop": ["ALL"]}
        assert linux["InitProcessEnabled"] is True
        assert [mount["ContainerPath"] for mount in linux["Tmpfs"]] == ["/tmp"]  # noqa: S108 # the container's
        assert not self.CONTAINER.get("Privileged")
        assert "Secrets" not in self.CONTAINER

    def test_the_drain_fits_into_the_stop_timeout(self):
        assert self.CONTAINER["StopTimeout"] == 120
        assert float(self.ENVIRONMENT["SCORING_DRAIN_TIMEOUT_S"]) <= self.CONTAINER["StopTimeout"] - 10

    def test_health_is_the_heartbeat_and_never_the_sink(self):
        kind, *command = self.CONTAINER["HealthCheck"]["Command"]
        assert kind == "CMD"
        assert command[:2] == ["python", "-c"]
        compile(command[2], "healthcheck", "exec")
        assert f"http://127.0.0.1:{self.ENVIRONMENT['SCORING_HTTP_PORT']}/healthz" in command[2]

    def test_the_health_check_tells_healthy_from_not(self, http_answer: Callable[[int], str]):
        command = self.CONTAINER["HealthCheck"]["Command"]
        for status, healthy in ((200, True), (503, False)):
            code = command[3].replace("http://127.0.0.1:9464", http_answer(status))
            ended = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)  # noqa: S603 # the template's own
            assert (ended.returncode == 0) == healthy

    def test_logs_do_not_block_and_are_kept_a_while(self):
        options = self.CONTAINER["LogConfiguration"]["Options"]
        assert options["mode"] == "non-blocking"
        assert "max-buffer-size" in options
        assert self.STACK.resources["LogGroup"]["Properties"]["RetentionInDays"] == 30

    def test_every_variable_is_one_the_service_knows(self):
        own = {name for name in self.ENVIRONMENT if name.startswith("SCORING_")}
        assert own <= set(VARIABLES)

    def test_a_streams_endpoint_is_passed_on_only_where_there_is_one(self):
        assert "AWS_ENDPOINT_URL_DYNAMODB_STREAMS" not in self.ENVIRONMENT
        url = "https://vpce-1.streams.dynamodb.us-east-1.vpce.amazonaws.com"
        container = service(DynamoDbStreamsEndpointUrl=url).resources["TaskDefinition"]["Properties"][
            "ContainerDefinitions"
        ][0]
        assert {"Name": "AWS_ENDPOINT_URL_DYNAMODB_STREAMS", "Value": url} in container["Environment"]

    def test_every_other_variable_can_be_set_by_the_one_parameter(self):
        others = sorted(set(VARIABLES) - set(self.ENVIRONMENT))
        assert {  # what the runbook and the guide to sizes tell people to change
            "SCORING_PINPOINT_UPDATE_BATCH_PER_S",
            "SCORING_IDENTITY_LOOKUP_PER_S",
            "SCORING_READ_BUDGET_MIB",
            "SCORING_BATCH_MAX_AGE_MS",
            "SCORING_BATCH_MAX_RECORDS",
            "SCORING_POLL_MAX_MS",
            "SCORING_LEASE_DURATION_S",
            "SCORING_DEAD_LETTER_TTL_DAYS",
        } <= set(others)
        for some in (others[start : start + EXTRAS] for start in range(0, len(others), EXTRAS)):
            given = {name: f"value-{number}" for number, name in enumerate(some)}
            text = " ".join(f"{name}={value}" for name, value in given.items())
            assert re.fullmatch(load("service")["Parameters"]["ExtraVariables"]["AllowedPattern"], text)
            assert environment(ExtraVariables=text) == {**self.ENVIRONMENT, **given}

    def test_extra_variables_reach_the_service_as_they_were_written(self):
        given = "SCORING_BATCH_MAX_AGE_MS=250 SCORING_IDENTITY_LOOKUP=off SCORING_SCORE_METRIC="
        settings = settings_load(environment(ExtraVariables=given))
        assert (settings.batch_max_age_ms, settings.identity_lookup, settings.options_of("pinpoint").score_metric) == (
            250,
            False,
            "",
        )

    @pytest.mark.parametrize(
        ("parameter", "text"),
        [
            ("ExtraVariables", "AWS_REGION=x"),
            ("ExtraVariables", "SCORING_A=1  SCORING_B=2"),
            ("ExtraVariables", "SCORING_A=1,SCORING_B=2 "),
            ("ExtraVariables", "SCORING_A"),
            ("ExtraVariables", "SCORING_A=b=c"),
            ("ExtraVariables", " ".join(["SCORING_A=1"] * 13)),
            ("PinpointProjectId", "a,"),
            ("PinpointProjectId", "a, b"),
            ("PinpointProjectId", "a/*"),
            ("PinpointProjectId", ",".join(["a"] * 9)),
            ("ProjectIds", "a,,b"),
            ("ProjectIds", "a b"),
        ],
    )
    def test_what_would_be_cut_off_or_split_wrongly_is_refused(self, parameter: str, text: str):
        spec = load("service")["Parameters"][parameter]
        assert not re.fullmatch(spec["AllowedPattern"], text)
        assert re.fullmatch(spec["AllowedPattern"], "")
        assert spec["ConstraintDescription"]

    @pytest.mark.parametrize(
        ("pinpoint", "projects", "sink", "count"),
        [
            ("", "", "log", ()),
            ("", "acme-shop,acme-app", "log", ("acme-shop", "acme-app")),
            ("0a,0b", "", "pinpoint", ("0a", "0b")),
            ("0a", "0a,acme-shop", "pinpoint", ("0a", "acme-shop")),
        ],
    )
    def test_several_projects_one_or_none(self, pinpoint: str, projects: str, sink: str, count: tuple[str, ...]):
        settings = settings_load(environment(PinpointProjectId=pinpoint, ProjectIds=projects))
        assert (settings.sinks, settings.project_ids) == ((sink,), count)

    def test_every_sink_that_has_a_parameter_is_in_use(self):
        arn = "arn:aws:secretsmanager:us-east-1:123456789012:secret:hook-AbCdEf"
        given = {"CustomerProfilesDomain": "crm", "EventBusName": "scores", "WebhookSecretArn": arn}
        container = service(**given).resources["TaskDefinition"]["Properties"]["ContainerDefinitions"][0]
        secrets = {each["Name"]: each["ValueFrom"] for each in container["Secrets"]}
        assert secrets == {f"SCORING_WEBHOOK_{name.upper()}": f"{arn}:{name}::" for name in ("url", "secret", "token")}
        assert not any("WEBHOOK" in each["Name"] for each in container["Environment"])
        plain = {each["Name"]: each["Value"] for each in container["Environment"]}
        filled = {
            "SCORING_WEBHOOK_URL": "https://example.com/hook",
            "SCORING_WEBHOOK_SECRET": SIGNING_SECRET,
            "SCORING_WEBHOOK_TOKEN": "",
        }
        settings = settings_load(plain | filled)
        assert settings.sinks == ("pinpoint", "customer-profiles", "eventbridge", "webhook")
        assert settings.options_of("customer-profiles").customer_profiles_domain == "crm"
        assert settings.options_of("eventbridge").eventbridge_bus == "scores"
        assert "Secrets" not in service().resources["TaskDefinition"]["Properties"]["ContainerDefinitions"][0]

    def test_without_a_project_scores_go_to_the_log(self):
        container = service(PinpointProjectId="").resources["TaskDefinition"]["Properties"]["ContainerDefinitions"][0]
        assert {"Name": "SCORING_SINKS", "Value": "log"} in container["Environment"]


class TestNetwork:
    def test_tasks_have_no_public_address_and_speak_https_only(self):
        stack = service()
        network = stack.resources["Service"]["Properties"]["NetworkConfiguration"]["AwsvpcConfiguration"]
        assert network["AssignPublicIp"] == "DISABLED"
        group = stack.resources["TaskSecurityGroup"]["Properties"]
        assert "SecurityGroupIngress" not in group
        assert [(rule["IpProtocol"], rule["FromPort"], rule["ToPort"]) for rule in group["SecurityGroupEgress"]] == [
            ("tcp", 443, 443)
        ]

    def test_metrics_are_read_by_one_security_group_only(self):
        stack = service()
        rules = stack.of_type("AWS::EC2::SecurityGroupIngress")
        assert [(rule["FromPort"], rule["ToPort"], rule["SourceSecurityGroupId"]) for rule in rules.values()] == [
            (9464, 9464, "<MetricsClientSecurityGroup>")
        ]
        assert not service(MetricsDnsNamespace="").of_type("AWS::EC2::SecurityGroupIngress")

    def test_endpoints_cover_what_the_task_speaks_to(self):
        endpoints = Stack("network").of_type("AWS::EC2::VPCEndpoint").values()
        services = {item["ServiceName"].removeprefix("com.amazonaws.us-east-1."): item for item in endpoints}
        assert {name for name, item in services.items() if item["VpcEndpointType"] == "Interface"} == {
            "kinesis-streams", "dynamodb-streams", "logs", "ecr.api", "ecr.dkr",
        }  # fmt: skip
        assert {name for name, item in services.items() if item["VpcEndpointType"] == "Gateway"} == {"dynamodb", "s3"}
        private = {name for name, item in services.items() if item.get("PrivateDnsEnabled")}
        assert private == {"kinesis-streams", "logs", "ecr.api", "ecr.dkr"}


def test_the_example_rule_for_eventbridge_is_a_template_without_fault():
    assert lint_file(FOLDER.parent / "eventbridge" / "api-destination.yml") == []
