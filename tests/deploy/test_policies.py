import pytest

from service.sinks.registry import LOOKUP, SINKS
from tests.deploy.calls import ADAPTERS, MODULES, sink_actions, unknown_adapters, worker_actions
from tests.deploy.templates import PROJECT, STREAM, Stack, service

TABLES = "arn:aws:dynamodb:us-east-1:123456789012:table"
APP = f"arn:aws:mobiletargeting:us-east-1:123456789012:apps/{PROJECT}"
RESOURCES = {
    STREAM: "stream",
    f"{TABLES}/userEngagementScore": "scores",
    f"{TABLES}/userEngagementScore/stream/*": "score stream",
    f"{TABLES}/engagementScoreDefinition": "definitions",
    f"{TABLES}/engagementScoringIdentities": "identities",
    f"{TABLES}/engagementScoringLeases": "leases",
    f"{TABLES}/engagementScoringDeadLetters": "dead letters",
    APP: "project",
    f"{APP}/*": "project",
    f"{APP}/endpoints/*": "project",
}
NO_RESOURCE = {"ecr:GetAuthorizationToken"}
"""Actions that AWS gives no resource
(https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonelasticcontainerregistry.html)."""

STACKS = [
    service(),
    service(Role="ingest"),
    service(Role="publish"),
    service(PinpointProjectId=""),
    Stack("data", PinpointEventStreamProjectId="0a", KmsKeyArn="arn:aws:kms:us-east-1:123456789012:key/1"),
    Stack("prometheus", ServiceName="engagement-scoring"),
]


def listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def statements(stack: Stack, role: str | None = None) -> list[dict]:
    return [
        statement
        for name, properties in stack.of_type("AWS::IAM::Role").items()
        if role in (None, name)
        for policy in properties.get("Policies", [])
        for statement in policy["PolicyDocument"]["Statement"]
    ]


def granted(stack: Stack) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for statement in statements(stack, "TaskRole"):
        for resource in listed(statement["Resource"]):
            found.setdefault(RESOURCES[resource], set()).update(listed(statement["Action"]))
    return found


def test_the_worker_may_do_what_it_does_and_nothing_else():
    assert granted(service()) == worker_actions()


@pytest.mark.parametrize("sink", SINKS)
def test_a_sink_says_which_actions_it_calls(sink: str):
    declared = SINKS[sink].actions | (LOOKUP.actions if LOOKUP.sink == sink else set())
    assert sink_actions(sink) == declared


ANOTHER = {
    "customer-profiles": ("CustomerProfilesDomain", "crm", "profile", ["domains/crm", "domains/crm/object-types/*"]),
    "eventbridge": ("EventBusName", "scores", "events", ["event-bus/scores"]),
}
"""Sink -> its parameter and a value, the prefix of its ARNs, and what they end with."""


@pytest.mark.parametrize("sink", ANOTHER)
def test_another_sink_is_granted_its_actions_where_it_is_in_use(sink: str):
    parameter, value, prefix, resources = ANOTHER[sink]

    def found(**parameters: str) -> list[dict]:
        made = statements(service(**parameters), "TaskRole")
        return [each for each in made if listed(each["Action"])[0].startswith(f"{prefix}:")]

    (statement,) = found(**{parameter: value})
    assert set(listed(statement["Action"])) == SINKS[sink].actions
    arns = [f"arn:aws:{prefix}:us-east-1:123456789012:{tail}" for tail in resources]
    assert listed(statement["Resource"]) == arns
    assert found() == []
    assert found(**{parameter: value}, Role="ingest") == []


def test_only_the_start_of_a_task_reads_the_webhooks_secret():
    arn = "arn:aws:secretsmanager:us-east-1:123456789012:secret:hook-AbCdEf"
    reading = [each for each in statements(service(WebhookSecretArn=arn), "ExecutionRole") if "Webhook" in each["Sid"]]
    assert [(each["Action"], each["Resource"]) for each in reading] == [("secretsmanager:GetSecretValue", arn)]
    assert "secretsmanager" not in str(statements(service(WebhookSecretArn=arn), "TaskRole"))
    assert "secretsmanager" not in str(statements(service(), "ExecutionRole"))


def test_every_class_that_speaks_to_aws_is_accounted_for():
    assert unknown_adapters() == set()
    assert {name for module in MODULES.values() for name in module.classes} >= set(ADAPTERS)


def test_the_roles_divide_what_the_worker_does():
    ingest, publish = granted(service(Role="ingest")), granted(service(Role="publish"))
    both = granted(service())
    assert both == {key: ingest.get(key, set()) | publish.get(key, set()) for key in both}
    assert "stream" not in publish
    assert "definitions" not in publish
    # What a sink may hold an older score of is written again; no score is ever made there.
    assert {"dynamodb:PartiQLUpdate", "dynamodb:PartiQLInsert"} & publish["scores"] == {"dynamodb:PartiQLUpdate"}
    assert "score stream" not in ingest
    assert ingest["project"] == {"mobiletargeting:GetApp", "mobiletargeting:GetEndpoint"}


def test_without_pinpoint_there_is_no_word_of_it():
    assert "project" not in granted(service(PinpointProjectId=""))


@pytest.mark.parametrize("count", range(1, 9))
def test_each_of_several_pinpoint_projects_is_granted_and_nothing_else(count: int):
    projects = [f"{number:032x}" for number in range(count)]
    (statement,) = [
        statement
        for statement in statements(service(PinpointProjectId=",".join(projects)), "TaskRole")
        if statement["Sid"] == "Pinpoint"
    ]
    prefix = "arn:aws:mobiletargeting:us-east-1:123456789012:apps/"
    assert statement["Resource"] == [f"{prefix}{project}{tail}" for project in projects for tail in ("", "/*")]


def test_the_task_manages_nothing():
    actions = {action for actions in granted(service()).values() for action in actions}
    words = ("Create", "UpdateTable", "DeleteTable", "Put*", "Tag", "PutRecord", "PassRole", "*")
    assert not [action for action in actions if any(word in action for word in words)]


@pytest.mark.parametrize("stack", STACKS)
def test_no_action_is_a_pattern_and_no_resource_is_everything(stack: Stack):
    for statement in statements(stack):
        actions = listed(statement["Action"])
        assert not any("*" in action for action in actions)
        if set(actions) <= NO_RESOURCE:
            assert statement["Resource"] == "*"
        else:
            assert "*" not in listed(statement["Resource"])


@pytest.mark.parametrize("stack", STACKS)
def test_roles_are_assumed_for_this_account_only(stack: Stack):
    for properties in stack.of_type("AWS::IAM::Role").values():
        for statement in properties["AssumeRolePolicyDocument"]["Statement"]:
            assert statement["Condition"]["StringEquals"] == {"aws:SourceAccount": "123456789012"}
            assert "aws:SourceArn" in statement["Condition"]["ArnLike"]
        assert not properties.get("ManagedPolicyArns")


def test_the_execution_role_starts_tasks_and_reads_no_data():
    actions = {action for statement in statements(service(), "ExecutionRole") for action in listed(statement["Action"])}
    assert {action.partition(":")[0] for action in actions} == {"ecr", "logs"}
