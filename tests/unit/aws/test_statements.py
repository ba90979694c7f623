from __future__ import annotations

import asyncio
from typing import Any

import botocore.session
import pytest

from service.aws.statements import Result, execute, result_of
from service.aws.translation import AwsSetupError
from service.runtime.errors import Trouble, TroubleError

CODES = (
    botocore.session.get_session()
    .get_service_model("dynamodb")
    .shape_for("BatchStatementErrorCodeEnum")
    .enum  # botocore's own list of what a statement may answer
)
RAISED = {"AccessDenied": AwsSetupError, "ResourceNotFound": AwsSetupError}


def judged(code: str) -> Result:
    return result_of({"Error": {"Code": code, "Message": "because"}}, "table t", remedy="make it", actions="writing")


@pytest.mark.parametrize("code", CODES)
def test_every_code_that_a_statement_may_answer_is_known(code: str):
    if code in RAISED:
        with pytest.raises(RAISED[code], match=r"make it|allow writing"):
            judged(code)
    else:
        assert judged(code) is not Result.DONE


def test_no_error_is_a_statement_that_was_carried_out():
    assert result_of({"TableName": "t"}, "table t", remedy="", actions="") is Result.DONE


@pytest.mark.parametrize("code", ["SomethingNew", ""])
def test_an_unknown_code_is_trouble_of_this_call(code: str):
    with pytest.raises(TroubleError, match="unknown code"):
        judged(code)


class Answers:
    """A client that answers every statement with the same error."""

    def __init__(self, code: str) -> None:
        self._code = code

    async def batch_execute_statement(self, **call: Any) -> dict[str, Any]:  # noqa: ANN401 - as the client has it
        return {"Responses": [{"Error": {"Code": self._code, "Message": "because"}} for _ in call["Statements"]]}


@pytest.mark.parametrize("code", ["ValidationError", "ItemCollectionSizeLimitExceeded"])
def test_a_statement_that_dynamodb_refuses_is_reported_as_refused(code: str):
    with pytest.raises(TroubleError, match="refused") as raised:
        asyncio.run(execute(Answers(code), "t", {"k": {}}, remedy="", actions=""))
    assert raised.value.kind is Trouble.REFUSED


@pytest.mark.parametrize("code", ["ConditionalCheckFailed", "DuplicateItem"])
def test_a_condition_that_does_not_hold_is_an_answer(code: str):
    assert asyncio.run(execute(Answers(code), "t", {"k": {}}, remedy="", actions="")) == {"k"}
