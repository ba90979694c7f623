"""The short way of hot calls gives what aiobotocore gives: results, errors, requests; against a scripted server."""

# ruff: noqa: ANN401 # clients, results and shapes of botocore have no types
from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any, get_args, get_type_hints

import botocore.session
import msgspec
import pytest
from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from botocore.exceptions import ClientError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.aws.fast import codec
from service.aws.fast.codec import OPERATIONS, Operation, epoch_seconds
from service.aws.fast.express import Express
from service.aws.fast.wire import Address, Wire
from tests.fakes.recorded_calls import ANSWERS, REQUESTS, Server

PATIENCE_S = 30.0
"""Of the clients: nothing here waits for it, and a loaded machine may well take a second to answer."""

each_operation = pytest.mark.parametrize(
    "operation", OPERATIONS, ids=lambda operation: f"{operation.service}.{operation.name}"
)


@contextlib.asynccontextmanager
async def client(service: str, url: str, counted: list[str] | None = None) -> AsyncIterator[Any]:
    """A client; with `counted`, one that takes the short way and notes each call there."""
    session = AioSession()
    session.set_credentials("AKID", "secret", "token")
    session.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=epoch_seconds)
    wire = Wire(limit=5, connect_timeout_s=PATIENCE_S, answer_timeout_s=PATIENCE_S, tls=_no_tls)
    if counted is not None:
        Express(session, wire, lambda _, operation, __: counted.append(operation)).install()
    config = AioConfig(retries={"mode": "standard", "total_max_attempts": 2}, read_timeout=PATIENCE_S)
    try:
        async with session.create_client(service, region_name="us-east-1", endpoint_url=url, config=config) as made:
            yield made
    finally:
        await wire.close()


def _no_tls() -> Any:
    raise AssertionError


def _request(operation: Operation) -> dict[str, Any]:
    return REQUESTS[operation.service, operation.name]


async def _outcome(made: Any, operation: Operation) -> Any:
    try:
        return await getattr(made, operation.method)(**_request(operation))
    except ClientError as error:
        return type(error).__name__, error.response
    except Exception as error:  # noqa: BLE001 # whatever aiobotocore raises, the short way must raise too
        return type(error).__name__


async def _both(operation: Operation, script: Callable[[int], tuple[int, dict[str, str], bytes] | None]) -> Any:
    """Return aiobotocore's outcome, the short way's, and how many calls the latter made by itself."""
    outcomes = []
    counted: list[str] = []
    for mode in (None, counted):
        server = Server()
        async with server.serving() as url, client(operation.service, url, mode) as made:
            # The first call is always aiobotocore's: the others learn from it.
            server.script = lambda _: (operation.status, {}, b"{}")
            await _outcome(made, operation)
            server.requests.clear()
            server.script = script
            outcome = await _outcome(made, operation)
            if mode is None and isinstance(outcome, dict):
                outcome = operation.narrow(outcome)
            outcomes.append(_comparable(outcome))
    return *outcomes, len(counted)


def _comparable(value: Any) -> Any:
    """Text of JSON compares by what it says."""
    match value:
        case msgspec.Raw():
            return "text", json.loads(bytes(value) or b"null")
        case dict():
            return {name: _comparable(member) for name, member in value.items()}
        case list():
            return [_comparable(member) for member in value]
        case msgspec.Struct():
            return _comparable(msgspec.structs.asdict(value))
        case _:
            return value


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0)


@each_operation
def test_recorded_answers_mean_the_same(operation: Operation):
    for answer in ANSWERS[operation.service, operation.name]:
        body = json.dumps(answer).encode()
        stock, fast, _ = asyncio.run(_both(operation, lambda _, body=body: (operation.status, {}, body)))
        assert fast == stock
        assert isinstance(stock, dict)


@each_operation
def test_an_everyday_answer_takes_the_short_way(operation: Operation):
    body = json.dumps(ANSWERS[operation.service, operation.name][0]).encode()
    *_, short = asyncio.run(_both(operation, lambda _: (operation.status, {}, body)))
    assert short == 1


@each_operation
@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, b'{"__type":"com.amazonaws#ProvisionedThroughputExceededException","message":"slow"}'),
        (400, b'{"__type":"ExpiredIteratorException","message":"old"}'),
        (400, b'{"__type":"ValidationException","message":"wrong"}'),
        (400, b'{"__type":"ConditionalCheckFailedException","message":"no","Item":{"a":{"B":"AAE="}}}'),
        (403, b'{"__type":"AccessDeniedException","Message":"no"}'),
        (413, b"{}"),
        (500, b'{"__type":"InternalServerError"}'),
        (503, b"<html>busy</html>"),
        (200, b"no JSON"),
        (200, b'{"Records":[{"Data":"!"}],"Responses":[{"Error":{"Code":7}}]}'),
        (429, b""),
    ],
)
def test_errors_are_aiobotocores(operation: Operation, status: int, body: bytes):
    stock, fast, short = asyncio.run(_both(operation, lambda _: (status, {}, body)))
    assert fast == stock
    assert short == 0 or status == 200  # what is wrong with an answer's body is wrong for some operations only


@each_operation
def test_a_passing_fault_is_retried_by_aiobotocore(operation: Operation):
    body = json.dumps(ANSWERS[operation.service, operation.name][0]).encode()

    def script(request: int) -> tuple[int, dict[str, str], bytes]:
        return (operation.status, {}, body) if request > 1 else (500, {}, b"{}")

    stock, fast, _ = asyncio.run(_both(operation, script))
    assert fast == stock
    assert fast["ResponseMetadata"]["RetryAttempts"] == 1


@each_operation
def test_a_lost_connection_is_retried_and_then_raised(operation: Operation):
    stock, fast, _ = asyncio.run(_both(operation, lambda _: None))
    assert fast == stock == "ConnectionClosedError"


@each_operation
def test_the_request_is_the_same_but_for_its_id(operation: Operation):
    async def play() -> list[tuple[str, dict[str, str], bytes]]:
        server = Server()
        server.script = lambda _: (operation.status, {}, b"{}")
        async with server.serving() as url, client(operation.service, url, []) as made:
            for _ in range(2):
                await _outcome(made, operation)
        return server.requests

    (stock_line, stock, stock_body), (line, fast, body) = asyncio.run(play())
    assert line == stock_line
    assert json.loads(body) == json.loads(stock_body)
    changing = {"authorization", "x-amz-date", "amz-sdk-invocation-id", "content-length", "accept"}
    assert {k: v for k, v in fast.items() if k not in changing} == {k: v for k, v in stock.items() if k not in changing}
    assert fast["authorization"].rpartition("=")[0] == stock["authorization"].rpartition("=")[0]


def test_a_checksum_that_does_not_fit_is_aiobotocores_business():
    operation = next(each for each in OPERATIONS if each.name == "BatchGetItem")
    headers = {"x-amz-crc32": "1"}
    stock, fast, short = asyncio.run(_both(operation, lambda _: (200, headers, b'{"Responses":{}}')))
    assert fast == stock
    assert short == 0


@pytest.mark.parametrize("calls", [1, 5])
def test_chunked_answers_are_left_to_aiobotocore_and_calls_not_doubled(calls: int):
    operation = OPERATIONS[0]

    async def play() -> tuple[Any, int, int]:
        server, counted = Server(), []
        async with server.serving() as url, client(operation.service, url, counted) as made:
            server.script = lambda _: (200, {}, b"{}")
            await _outcome(made, operation)
            headers = {"Transfer-Encoding": "chunked"}
            server.script = lambda _: (200, headers, b'10\r\n{"Records": [ ]}\r\n0\r\n\r\n')
            for _ in range(calls):
                result = await _outcome(made, operation)
        return result, len(server.requests), len(counted)

    result, requests, short = asyncio.run(play())
    assert short == 0
    assert result["Records"] == []
    assert requests == 1 + calls + 1  # one of them twice: who answers so is not known before


def test_credentials_renewed_during_a_retry_keep_the_short_way():
    operation = OPERATIONS[1]

    async def play() -> list[str]:
        server, counted = Server(), []
        async with server.serving() as url, client("dynamodbstreams", url, counted) as made:
            credentials = made._request_signer._credentials

            def script(number: int) -> tuple[int, dict[str, str], bytes]:
                if number == 2:  # it fails, and is retried under other credentials
                    credentials.access_key = "RENEWED"
                    return 500, {}, b"{}"
                return 200, {}, b"{}"

            server.script = script
            for _ in range(4):
                await _outcome(made, operation)
        return counted

    # By aiobotocore: the first call, the failed one, and the next, from which the new credentials' template comes.
    assert asyncio.run(play()) == ["GetRecords"]


def test_other_credentials_need_another_template():
    operation = OPERATIONS[1]

    async def play() -> tuple[list[str], list[str]]:
        server, counted = Server(), []
        async with server.serving() as url:
            session = AioSession()
            session.set_credentials("FIRST", "secret")
            wire = Wire(limit=5, connect_timeout_s=PATIENCE_S, answer_timeout_s=PATIENCE_S, tls=_no_tls)
            Express(session, wire, lambda *_: counted.append("short")).install()
            async with session.create_client("dynamodbstreams", region_name="us-east-1", endpoint_url=url) as made:
                for key in ("FIRST", "FIRST", "SECOND", "SECOND"):
                    credentials = await session.get_credentials()
                    credentials.access_key = key
                    await _outcome(made, operation)
            await wire.close()
        return [headers["authorization"].split("=")[1][:6] for _, headers, _ in server.requests], counted

    keys, counted = asyncio.run(play())
    assert keys == ["FIRST/", "FIRST/", "SECOND", "SECOND"]
    assert counted == ["short", "short"]


# Generated answers: shapes from botocore's own models, parsed by its own parser.

_models = {
    service: botocore.session.get_session().get_service_model(service)
    for service in sorted({operation.service for operation in OPERATIONS})
}


def _shape(operation: Operation) -> Any:
    return _models[operation.service].operation_model(operation.name).output_shape


_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


def _values(shape: Any, depth: int = 0) -> st.SearchStrategy[Any]:
    match shape.type_name:
        case "structure":
            members = {
                name: _values(member, depth + 1)
                for name, member in shape.members.items()
                if depth < 6 or member.type_name not in {"structure", "list", "map"}
            }
            return st.fixed_dictionaries({}, optional=members)
        case "list":
            return st.lists(_values(shape.member, depth + 1), max_size=2)
        case "map":
            return st.dictionaries(_text, _values(shape.value, depth + 1), max_size=2)
        case "blob":
            return st.binary(max_size=8).map(lambda data: base64.b64encode(data).decode())
        case "boolean":
            return st.booleans()
        case "timestamp":
            return st.floats(0, 4e9) | st.integers(0, 4_000_000_000)
        case "long" | "integer":
            return st.integers(0, 2**53)
        case "double" | "float":
            return st.floats(allow_nan=False, allow_infinity=False)
        case _:
            return _text


@each_operation
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(data=st.data())
def test_generated_answers_mean_the_same(operation: Operation, data: st.DataObject):
    shape = _shape(operation)
    value = data.draw(_values(shape.members["MessageBody"] if operation.service == "pinpoint" else shape))
    body = json.dumps(value).encode()
    session = AioSession()
    factory = session.get_component("response_parser_factory")
    factory.set_parser_defaults(timestamp_parser=epoch_seconds)
    parser = factory.create_parser("rest-json" if operation.service == "pinpoint" else "json")
    response = {"body": body, "headers": {}, "status_code": operation.status, "context": {}}
    stock = asyncio.run(parser.parse(response, shape))
    del stock["ResponseMetadata"]
    assert _comparable(operation.decode(body)) == _comparable(operation.narrow(stock))


@each_operation
def test_every_member_of_the_model_is_declared(operation: Operation):
    declared = {
        "GetRecords": codec.KinesisPage if operation.service == "kinesis" else codec.StreamPage,
        "BatchExecuteStatement": codec.StatementsAnswer,
        "BatchGetItem": codec.ItemsAnswer,
        "GetItem": codec.ItemAnswer,
        "PutItem": codec.WriteAnswer,
        "UpdateItem": codec.WriteAnswer,
        "Scan": codec.PageAnswer,
        "Query": codec.PageAnswer,
    }.get(operation.name)
    if declared is not None:
        _covers(declared, _shape(operation), set())


def _covers(declared: Any, shape: Any, seen: set[str]) -> None:
    if shape.type_name == "structure" and shape.name not in seen:
        seen.add(shape.name)
        hints = get_type_hints(declared)
        if issubclass(declared, msgspec.Struct):  # what is wanted of it
            hints = {field.encode_name: field.type for field in msgspec.structs.fields(declared)}
            assert set(hints) <= set(shape.members), shape.name
        else:
            assert set(shape.members) <= set(hints), shape.name
        for name in set(shape.members) & set(hints):
            if hints[name] is not msgspec.Raw:
                _covers(hints[name], shape.members[name], seen)
    elif shape.type_name == "list":
        _covers(get_args(declared)[0], shape.member, seen)
    elif shape.type_name == "map":
        _covers(get_args(declared)[1], shape.value, seen)
    elif shape.type_name in {"string", "blob"}:
        assert declared is (str if shape.type_name == "string" else bytes)


def test_timestamps_of_all_protocols_become_epoch_seconds():
    moment = datetime(2026, 10, 1, tzinfo=UTC)
    assert epoch_seconds(moment.timestamp()) == epoch_seconds(moment.isoformat()) == moment.timestamp()
    assert isinstance(epoch_seconds(1), float)
    assert msgspec.json.decode(b"1.5") == epoch_seconds(1.5)


def test_calls_that_hang_keep_no_other_operation_waiting():
    async def play() -> bytes:
        server = Server()
        asked, over = asyncio.Event(), asyncio.Event()

        async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            asked.set()
            await reader.read()
            writer.close()
            over.set()

        wire = Wire(limit=1, connect_timeout_s=PATIENCE_S, answer_timeout_s=PATIENCE_S, tls=_no_tls)
        silent = await asyncio.start_server(hang, "127.0.0.1", 0)
        request = b"POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n"
        async with silent, server.serving() as url:
            server.script = lambda _: (200, {}, b"heard")
            hanging = asyncio.create_task(
                wire.exchange(Address("127.0.0.1", silent.sockets[0].getsockname()[1], tls=False), request, "look-ups")
            )
            await asked.wait()
            answer = await wire.exchange(
                Address("127.0.0.1", int(url.rpartition(":")[2]), tls=False), request, "heartbeats"
            )
            hanging.cancel()
            await asyncio.wait([hanging])
            await wire.close()
            await over.wait()
        return bytes(answer.body)

    assert asyncio.run(play()) == b"heard"
