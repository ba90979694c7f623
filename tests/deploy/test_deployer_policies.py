"""The IAM policies of the person who deploys: enough for the script, the guide and CloudFormation, and little more.

What CloudFormation calls for a resource is in the resource's own schema (`handlers`), which cfn-lint carries
(https://docs.aws.amazon.com/cloudformation-cli/latest/userguide/resource-type-schema.html).
"""

from __future__ import annotations

import asyncio
import json
import re
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from botocore import xform_name
from cfnlint.data import AdditionalSpecs
from cfnlint.schema.manager import PROVIDER_SCHEMA_MANAGER

from service.admin.setup import Setup
from service.admin.setup_plan import Names
from service.aws.clients import AwsSettings, clients
from service.local.emulator import REGION
from tests.deploy.files import GUIDE
from tests.deploy.script import Deploy
from tests.deploy.templates import DIGEST, FOLDER, STREAM, load
from tests.fakes.embedded import FreshName

IAM = FOLDER.parent / "iam"
POLICIES = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in IAM.glob("*.json")}
SERVICE, DATA, PROMETHEUS = "deployer-service", "deployer-data-network", "deployer-prometheus"
MANAGED_POLICY_LIMIT = 6144
"""Characters of a managed policy, blanks not counted
(https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html)."""
AUTHORIZATION = json.loads((Path(AdditionalSpecs.__file__).parent / "Policies.json").read_text(encoding="utf-8"))
"""AWS's service authorization reference, as cfn-lint has it: prefix -> Actions, in lower case."""

UNUSED = {
    "no template imports a table, copies it to another region, streams it to Kinesis or gives it a policy": """
        dynamodb:AssociateTableReplica dynamodb:BatchWriteItem dynamodb:CreateTableReplica dynamodb:DeleteItem
        dynamodb:DeleteResourcePolicy dynamodb:DescribeImport dynamodb:DisableKinesisStreamingDestination
        dynamodb:EnableKinesisStreamingDestination dynamodb:GetItem dynamodb:ImportTable dynamodb:PutResourcePolicy
        dynamodb:Query dynamodb:UpdateContributorInsights dynamodb:UpdateItem
        dynamodb:UpdateKinesisStreamingDestination kinesis:DescribeStream kinesis:PutRecords logs:CreateLogStream
        logs:DescribeLogStreams logs:PutLogEvents s3:GetObject s3:GetObjectMetadata s3:ListBucket""",
    "the stream has no enhanced monitoring, larger records or warm throughput": """
        kinesis:DisableEnhancedMonitoring kinesis:EnableEnhancedMonitoring kinesis:UpdateMaxRecordSize
        kinesis:UpdateStreamRecordDistributionStrategy kinesis:UpdateStreamWarmThroughput""",
    "roles have neither managed policies nor boundaries": """
        iam:AttachRolePolicy iam:DeleteRolePermissionsBoundary iam:PutRolePermissionsBoundary""",
    "settings of the whole account are left alone": "ecs:PutAccountSetting ecs:PutAccountSettingDefault",
    "scaling has no schedule, and scales no Lambda function": """
        application-autoscaling:DeleteScheduledAction application-autoscaling:PutScheduledAction
        lambda:DeleteProvisionedConcurrencyConfig lambda:GetProvisionedConcurrencyConfig
        lambda:PutProvisionedConcurrencyConfig""",
    "the log group has no key, policy, index or delivery of its own": """
        firehose:TagDeliveryStream logs:AssociateKmsKey logs:CreateLogDelivery logs:DeleteIndexPolicy
        logs:DeleteResourcePolicy logs:DisassociateKmsKey logs:PutBearerTokenAuthentication
        logs:PutDataProtectionPolicy logs:PutIndexPolicy logs:PutLogGroupDeletionProtection logs:PutResourcePolicy
        s3:REST.PUT.OBJECT""",
    "the endpoints are AWS's own, in this region": """
        vpc-lattice:CreateServiceNetworkVpcEndpointAssociation
        vpc-lattice:DescribeServiceNetworkVpcEndpointAssociation vpce:AllowMultiRegion""",
    "the Cloud Map service has no attributes": """
        servicediscovery:DeleteServiceAttributes servicediscovery:UpdateServiceAttributes""",
    "the collector reads a VPC, not EKS or MSK, and neither it nor the workspace writes logs or has a key": """
        aps:CreateLoggingConfiguration aps:CreateQueryLoggingConfiguration aps:UpdateLoggingConfiguration
        aps:UpdateQueryLoggingConfiguration aps:UpdateScraperLoggingConfiguration aps:UpdateWorkspaceConfiguration
        eks:AssociateAccessPolicy eks:CreateAccessEntry eks:DescribeCluster kafka:DescribeCluster
        kafka:DescribeClusterV2 kafka:GetBootstrapBrokers kafka:ListClusters kafka:ListNodes kms:GenerateDataKey
        logs:CreateLogDelivery logs:DeleteLogDelivery logs:GetLogDelivery logs:ListLogDeliveries
        logs:PutResourcePolicy logs:UpdateLogDelivery""",
}
"""What the schemas name and no stack of ours comes to, by the reason."""

BESIDE = {
    "the guide: pushing the image, trying the task's role": """
        ecr:BatchCheckLayerAvailability ecr:BatchGetImage ecr:CompleteLayerUpload ecr:CreateRepository
        ecr:DescribeImages ecr:GetAuthorizationToken ecr:GetDownloadUrlForLayer ecr:InitiateLayerUpload ecr:PutImage
        ecr:UploadLayerPart ecs:RunTask""",
    "CloudFormation looks at parameters of the types VPC and subnet": "ec2:DescribeSubnets ec2:DescribeVpcs",
    "Cloud Map deletes the zone that it made": "route53:DeleteHostedZone",
}
"""What is granted although neither script nor schemas name it, by the reason."""

UNTESTED_TYPES = {"AWS::Pinpoint::EventStream"}
"""Its schema names no calls; Pinpoint has ended, and the guide says that the policies leave it out."""


def words(groups: dict[str, str]) -> set[str]:
    return {action for text in groups.values() for action in text.split()}


def listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def statements(*names: str) -> list[dict[str, Any]]:
    return [statement for name in names for statement in POLICIES[name]["Statement"]]


def actions(*names: str) -> set[str]:
    return {action for statement in statements(*names) for action in listed(statement["Action"])}


def allows(action: str, resource: str, *names: str) -> bool:
    return any(
        action in listed(statement["Action"])
        and any(
            fnmatchcase(resource, pattern.replace("REGION", "us-east-1").replace("ACCOUNT", "123456789012"))
            for pattern in listed(statement["Resource"])
        )
        for statement in statements(*names)
    )


def named(kind: str) -> set[str]:
    return {item["Type"] for item in load(kind)["Resources"].values()}


def handled(types: set[str]) -> set[str]:
    """What CloudFormation calls to make, look at, change and delete resources of these types."""
    found: set[str] = set()
    for kind in types - UNTESTED_TYPES:
        handlers = PROVIDER_SCHEMA_MANAGER.get_resource_schema("us-east-1", kind).schema["handlers"]
        found |= {each for name, handler in handlers.items() if name != "list" for each in handler["permissions"]}
    return found


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("data", (SERVICE, DATA)),
        ("network", (SERVICE, DATA)),
        ("service", (SERVICE,)),
        ("prometheus", (SERVICE, PROMETHEUS)),
    ],
)
def test_a_stack_can_be_made_changed_and_deleted(kind: str, names: tuple[str, ...]):
    # An own key is data's; the cluster's storage has none.
    keys = (
        {"kms:DescribeKey"}
        if kind == "service"
        else {"kms:CreateGrant", "kms:Decrypt"}
        if kind == "prometheus"
        else set()
    )
    assert handled(named(kind)) - words(UNUSED) - keys <= actions(*names)


def test_what_is_left_out_is_what_the_schemas_name_and_is_not_granted():
    every = handled({each for kind in ("data", "network", "service", "prometheus") for each in named(kind)})
    assert words(UNUSED) <= every
    assert words(UNUSED) & actions(*POLICIES) == set()


IAM_NAMES = {"logs tail": ["filter-log-events"], "sts get-caller-identity": []}
"""What a command calls that is no operation by its name; whose caller one is, nobody needs permission to ask
(awscli/customizations/logs/tail.py)."""


def called(service: str, word: str, third: str = "") -> list[str]:
    """Return the IAM actions of an AWS CLI command: `cloudformation`, `wait`, `stack-create-complete`."""
    if f"{service} {word}" == "ecr get-login-password":
        return ["ecr:GetAuthorizationToken"]
    session = botocore.session.get_session()
    model = session.get_service_model(service)
    operations = {xform_name(name, "-"): name for name in model.operation_names}
    if word == "wait":
        waiters = session.get_waiter_model(service)
        names = [waiters.get_waiter(name).operation for name in waiters.waiter_names if xform_name(name, "-") == third]
        assert names
    else:
        names = [operations[each] for each in IAM_NAMES.get(f"{service} {word}", [word])]
    return [f"{service}:{name}" for name in names]


OUTPUTS = "ClusterName\tengagement-scoring\nServiceName\tengagement-scoring\nLogGroupName\t/ecs/engagement-scoring"
RESOURCES = {
    "cloudformation": "arn:aws:cloudformation:us-east-1:123456789012:stack/engagement-scoring-data/1-2-3",
    "ecr": "arn:aws:ecr:us-east-1:123456789012:repository/engagement-scoring",
    "ecs": "arn:aws:ecs:us-east-1:123456789012:service/engagement-scoring/engagement-scoring",
    "logs": "arn:aws:logs:us-east-1:123456789012:log-group:/ecs/engagement-scoring:*",
    "cloudwatch": "*",
}
"""What the script's calls are about, by service."""


@pytest.fixture
def script_calls(tmp_path: Path) -> set[str]:
    """Every IAM action that the script's commands come to, whatever AWS answers."""
    deploy = Deploy(tmp_path)
    deploy.settings.write_text(
        f"Region=us-east-1\nImageDigest={DIGEST}\nVpcId=vpc-1\nSubnetIds=s-1\nStreamArn={STREAM}\n"
    )
    there = {"describe-stacks OutputKey": (0, OUTPUTS), "describe-stacks": (0, "UPDATE_COMPLETE")}
    nothing = {"wait change-set": (255, ""), "describe-change-set StatusReason": (0, "didn't contain changes")}
    for answers, commands in (
        ({}, ["plan data", "apply data --yes", "apply service --yes"]),
        ({"wait stack-create-complete": (255, "")}, ["apply data --yes"]),
        (there, ["plan service", "apply service --yes", "status", "logs", "destroy --yes"]),
        (there | nothing, ["plan service"]),
        (there | {"--version": (0, "aws-cli/2.31.0 Python/3.13")}, ["logs"]),
    ):
        deploy.answer(answers)
        for command in commands:
            deploy(*command.split())
    lines = [json.loads(line) for line in (tmp_path / "calls").read_text(encoding="utf-8").splitlines()]
    commands = {tuple(line[:3]) for line in lines if line[0] != "--version"}
    assert {service for service, *_ in commands} == RESOURCES.keys() | {"sts"}
    return {action for line in commands for action in called(*line)}


def test_the_script_may_make_every_call_that_it_makes(script_calls: set[str]):
    for action in script_calls:
        assert allows(action, RESOURCES[action.partition(":")[0]], SERVICE), action


def test_nothing_is_granted_without_a_reason(script_calls: set[str]):
    every = handled({each for kind in ("data", "network", "service", "prometheus") for each in named(kind)})
    assert actions(*POLICIES) - every - script_calls == words(BESIDE) - every - script_calls


def test_every_command_of_the_guide_is_allowed():
    guide = GUIDE.read_text(encoding="utf-8").partition("\n## Deploy\n")[2].partition("\n## ")[0]
    commands = set(re.findall(r"\baws ([a-z-]+) ([a-z-]+)", guide))
    assert ("ecr", "create-repository") in commands
    assert ("ecs", "run-task") in commands
    needed = {action for command in commands for action in called(*command)}
    assert needed <= actions(SERVICE, DATA)


def test_writing_the_definitions_is_allowed(aws_environment: dict[str, str], fresh_name: FreshName):
    """`scoring setup --project ID`, once the stack `data` has made everything else."""
    assert aws_environment
    names = Names(*(fresh_name(f"deployer-{field}") for field in Names.__struct_fields__))
    made: set[str] = set()

    def note(model: Any, **_: object) -> None:  # noqa: ANN401 # botocore's
        made.add(f"{model.service_model.service_name}:{model.name}")

    async def set_up() -> None:
        # Without fast calls, so that every call shows in the events.
        async with clients(AwsSettings(region=REGION, fast_calls=False)) as aws:
            setup = Setup(names, aws.dynamodb, aws.kinesis)
            await setup.run()
            for each in (aws.dynamodb, aws.kinesis):
                each.meta.events.register("before-call", note)
            await setup.run(["acme-shop"])

    asyncio.run(set_up())
    assert "dynamodb:TransactWriteItems" in made
    made = made - {"dynamodb:TransactWriteItems"} | {"dynamodb:PutItem"}
    assert made <= actions(SERVICE, DATA)


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_fits_and_names_actions_that_exist(name: str):
    assert len("".join(json.dumps(POLICIES[name]).split())) < MANAGED_POLICY_LIMIT
    assert POLICIES[name]["Version"] == "2012-10-17"
    for action in actions(name):
        prefix, _, operation = action.partition(":")
        assert operation.lower() in AUTHORIZATION[prefix]["Actions"], action


@pytest.mark.parametrize("name", POLICIES)
def test_roles_are_passed_and_made_for_our_stacks_only(name: str):
    for statement in POLICIES[name]["Statement"]:
        granted = listed(statement["Action"])
        if "iam:PassRole" in granted:
            assert statement["Condition"]["StringEquals"]["iam:PassedToService"] == "ecs-tasks.amazonaws.com"
        if any(action.startswith("iam:") for action in granted):
            assert all(
                resource.startswith(
                    ("arn:aws:iam::ACCOUNT:role/engagement-scoring-", "arn:aws:iam::ACCOUNT:role/aws-service-role/")
                )
                for resource in listed(statement["Resource"])
            )
        if "iam:CreateServiceLinkedRole" in granted and "Condition" not in statement:
            assert "/scraper.aps.amazonaws.com/" in statement["Resource"]
