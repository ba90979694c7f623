"""The Pinpoint fake against botocore's model: every operation, its status, and every member of every answer."""

import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator

import boto3
import botocore.session
import pytest
from botocore.awsrequest import AWSResponse
from botocore.client import BaseClient
from botocore.config import Config
from botocore.exceptions import ClientError
from botocore.model import OperationModel, Shape

from service.local.pinpoint_fake import PinpointProcess
from service.local.pinpoint_fake.server import ROUTES

APP = "b" * 32
MODEL = botocore.session.get_session().get_service_model("pinpoint")
OPERATIONS = sorted(operation.name for methods in ROUTES.values() for operation in methods.values())
SCALARS = {"string": str, "double": (int, float), "integer": int, "boolean": bool}


@pytest.fixture(scope="module")
def pinpoint() -> Iterator[PinpointProcess]:
    with PinpointProcess(apps=[APP]) as running:
        yield running


def client_of(running: PinpointProcess, **config: object):
    return boto3.client(
        "pinpoint",
        endpoint_url=running.endpoint_url,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",  # noqa: S106
        config=Config(retries={"total_max_attempts": 1}, **config),
    )


@pytest.fixture
def client(pinpoint: PinpointProcess):
    made = client_of(pinpoint)
    yield made
    made.close()


def mismatches(shape: Shape, value: object, where: str) -> Iterator[str]:
    """Everything in a raw answer that the model does not have, or has otherwise."""
    if shape.type_name == "structure":
        if not isinstance(value, dict):
            yield f"{where}: no object"
            return
        by_wire_name = {member.serialization.get("name", name): member for name, member in shape.members.items()}
        yield from (f"{where}.{name} is unknown" for name in value.keys() - by_wire_name.keys())
        yield from (f"{where}.{name} is missing" for name in set(shape.required_members) - value.keys())
        for name in value.keys() & by_wire_name.keys():
            yield from mismatches(by_wire_name[name], value[name], f"{where}.{name}")
    elif shape.type_name == "list":
        for index, member in enumerate(value if isinstance(value, list) else [f"{where}: no list"]):
            yield from mismatches(shape.member, member, f"{where}[{index}]")
    elif shape.type_name == "map":
        for key, member in value.items():
            yield from mismatches(shape.key, key, f"{where} key")
            yield from mismatches(shape.value, member, f"{where}.{key}")
    elif not isinstance(value, SCALARS[shape.type_name]) or (shape.type_name != "boolean" and isinstance(value, bool)):
        yield f"{where}: {value!r} is no {shape.type_name}"
    elif getattr(shape, "enum", None) and value not in shape.enum:
        yield f"{where}: {value!r} is none of {shape.enum}"


FULL = {
    "Address": "a@example.com",
    "Attributes": {"interests": ["one", "two"]},
    "ChannelType": "EMAIL",
    "Demographic": {
        "AppVersion": "1",
        "Locale": "en",
        "Make": "m",
        "Model": "n",
        "ModelVersion": "2",
        "Platform": "p",
        "PlatformVersion": "3",
        "Timezone": "UTC",
    },
    "EffectiveDate": "2026-05-04T12:00:00.000Z",
    "EndpointStatus": "ACTIVE",
    "Location": {
        "City": "c",
        "Country": "DE",
        "Latitude": 1.5,
        "Longitude": 2.5,
        "PostalCode": "1",
        "Region": "r",
    },
    "Metrics": {"EngagementScore": 12.5},
    "OptOut": "NONE",
    "RequestId": "mine",
    "User": {"UserId": "user/with slash", "UserAttributes": {"EngagementScore": ["12"]}},
}


def play(client: BaseClient) -> None:
    """Every operation at least once, with ids that need quoting in a path."""
    created = client.create_app(CreateApplicationRequest={"Name": "shop", "tags": {"k": "v"}})["ApplicationResponse"]
    assert created["tags"] == {"k": "v"}
    app = created["Id"]
    assert client.get_app(ApplicationId=app)["ApplicationResponse"] == created
    assert created in client.get_apps(PageSize="50")["ApplicationsResponse"]["Item"]

    client.update_endpoint(ApplicationId=app, EndpointId="id/with ü", EndpointRequest=FULL)
    shown = client.get_endpoint(ApplicationId=app, EndpointId="id/with ü")["EndpointResponse"]
    assert {name: shown[name] for name in FULL} == FULL
    assert shown["Id"] == "id/with ü"
    client.update_endpoints_batch(
        ApplicationId=app,
        EndpointBatchRequest={
            "Item": [{"Id": f"e{n}", "ChannelType": "SMS", "User": {"UserId": f"u{n}"}} for n in range(100)]
        },
    )
    user = client.get_user_endpoints(ApplicationId=app, UserId="user/with slash")["EndpointsResponse"]
    assert user["Item"] == [shown]
    event = {"EventType": "_session.start", "Timestamp": "2026-05-04T12:00:00.000Z"}
    batch = {"e1": {"Endpoint": {"OptOut": "ALL"}, "Events": {"event": event}}}
    results = client.put_events(ApplicationId=app, EventsRequest={"BatchItem": batch})["EventsResponse"]["Results"]
    assert results["e1"]["EventsItemResponse"]["event"]["StatusCode"] == 202
    assert client.get_endpoint(ApplicationId=app, EndpointId="e1")["EndpointResponse"]["OptOut"] == "ALL"

    stream = {
        "DestinationStreamArn": "arn:aws:kinesis:us-east-1:000000000000:stream/s",
        "RoleArn": "arn:aws:iam::0:role/r",
    }
    put = client.put_event_stream(ApplicationId=app, WriteEventStream=stream)["EventStream"]
    assert client.get_event_stream(ApplicationId=app)["EventStream"] == put
    assert client.delete_event_stream(ApplicationId=app)["EventStream"] == put

    assert client.delete_endpoint(ApplicationId=app, EndpointId="e2")["EndpointResponse"]["Id"] == "e2"
    deleted = client.delete_user_endpoints(ApplicationId=app, UserId="user/with slash")["EndpointsResponse"]
    assert [endpoint["Id"] for endpoint in deleted["Item"]] == ["id/with ü"]
    client.delete_app(ApplicationId=app)


def test_every_answer_is_of_the_models_shape_and_status(client: BaseClient):
    seen = {}

    def note(model: OperationModel, http_response: AWSResponse, **_: object) -> None:
        seen.setdefault(model.name, []).append((http_response.status_code, json.loads(http_response.content)))

    client.meta.events.register("after-call.pinpoint", note)
    play(client)
    assert sorted(seen) == OPERATIONS
    found = []
    for name, answers in seen.items():
        operation = MODEL.operation_model(name)
        shape = operation.output_shape.members[operation.output_shape.serialization["payload"]]
        for status, body in answers:
            assert status == operation.http["responseCode"], name
            found += mismatches(shape, body, name)
    assert found == []


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_path_is_the_models(name: str):
    http = MODEL.operation_model(name).http
    parts = http["requestUri"].removeprefix("/v1/apps").split("/")[1:]
    shape = tuple("*" if part.startswith("{") else part for part in parts)
    operation = ROUTES[shape][http["method"]]
    assert (operation.name, operation.status) == (name, http["responseCode"])


def code_of(call: Callable[..., object], **arguments: object) -> tuple[int, str]:
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    answer = caught.value.response
    assert answer["Message"] == answer["Error"]["Message"]
    assert answer["RequestID"] == answer["ResponseMetadata"]["RequestId"]
    return answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Code"]


def test_errors_are_those_of_the_model(client: BaseClient):
    absent = (404, "NotFoundException")
    assert code_of(client.get_endpoint, ApplicationId=APP, EndpointId="no") == absent
    assert code_of(client.get_user_endpoints, ApplicationId=APP, UserId="no") == absent
    assert code_of(client.get_app, ApplicationId="no") == absent
    assert code_of(client.get_event_stream, ApplicationId=APP) == absent
    with pytest.raises(client.exceptions.BadRequestException):
        client.update_endpoint(ApplicationId=APP, EndpointId="e", EndpointRequest={"EndpointStatus": "sleepy"})
    items = [{"Id": str(n)} for n in range(101)]
    bad = (400, "BadRequestException")
    assert code_of(client.update_endpoints_batch, ApplicationId=APP, EndpointBatchRequest={"Item": items}) == bad


def test_a_request_of_more_than_7_mb_is_too_large(client: BaseClient):
    items = [{"Id": str(n), "Attributes": {str(a): ["x" * 100] * 50 for a in range(14)}} for n in range(100)]
    with pytest.raises(client.exceptions.PayloadTooLargeException) as caught:
        client.update_endpoints_batch(ApplicationId=APP, EndpointBatchRequest={"Item": items})
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 413


def test_a_method_that_a_path_does_not_have_is_not_allowed(pinpoint: PinpointProcess):
    request = urllib.request.Request(f"{pinpoint.endpoint_url}/v1/apps/{APP}/users/u", b"{}", method="POST")  # noqa: S310
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request)  # noqa: S310
    with caught.value as answer:
        assert (answer.code, answer.headers["x-amzn-ErrorType"]) == (405, "MethodNotAllowedException")


def test_quotas_throttle_and_are_counted():
    with PinpointProcess(apps=[APP], quotas="GetEndpoint=0.01,UpdateEndpoint=100") as throttled:
        client = client_of(throttled, user_agent_extra="engagement-scoring/0.1.0")
        client.update_endpoint(ApplicationId=APP, EndpointId="e", EndpointRequest={})
        client.get_endpoint(ApplicationId=APP, EndpointId="e")
        with pytest.raises(client.exceptions.TooManyRequestsException):
            client.get_endpoint(ApplicationId=APP, EndpointId="e")
        client.close()
        stats = throttled.stats()
    assert stats["throttled"] == {"GetEndpoint": 1}
    assert stats["requests"]["worker"]["pinpoint.GetEndpoint"]["failed"] == 1
    assert stats["requests"]["other"] == {}


def test_failures_can_be_asked_for(pinpoint: PinpointProcess, client: BaseClient):
    pinpoint.fail("UpdateEndpoint", times=1, status=500)
    error = (500, "InternalServerErrorException")
    assert code_of(client.update_endpoint, ApplicationId=APP, EndpointId="f", EndpointRequest={}) == error
    assert code_of(client.get_endpoint, ApplicationId=APP, EndpointId="f") == (404, "NotFoundException")
    pinpoint.fail("UpdateEndpoint", lose_response=True)
    with pytest.raises(Exception, match=r"[Cc]onnection"):
        client.update_endpoint(ApplicationId=APP, EndpointId="f", EndpointRequest={})
    assert client.get_endpoint(ApplicationId=APP, EndpointId="f")["EndpointResponse"]["Id"] == "f"


def test_all_endpoints_are_listed_with_the_attributes_of_their_user(pinpoint: PinpointProcess, client: BaseClient):
    for endpoint_id in ("l1", "l2"):
        request = {"User": {"UserId": "lister", "UserAttributes": {"EngagementScore": [endpoint_id]}}}
        client.update_endpoint(ApplicationId=APP, EndpointId=endpoint_id, EndpointRequest=request)
    listed = {e["Id"]: e["User"]["UserAttributes"] for e in pinpoint.endpoints() if e["Id"].startswith("l")}
    assert listed == {"l1": {"EngagementScore": ["l2"]}, "l2": {"EngagementScore": ["l2"]}}
