"""One call whose refusal is an answer: for commands that look at what there is, or try what is allowed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any

import msgspec
from botocore.exceptions import ClientError

from service.aws.translation import code_of, failure, translated, trouble_of
from service.runtime.errors import Trouble


class Answer(msgspec.Struct, frozen=True):
    """What a call was answered with. Either `found` or `error` is set.

    Attributes:
        what: The resource that was asked about, for messages.
        found: The result of a call that succeeded.
        error: The refusal.
    """

    what: str
    found: Mapping[str, Any] | None = None
    error: ClientError | None = None

    @property
    def code(self) -> str:
        """The error code of a refusal; empty if the call succeeded."""
        return "" if self.error is None else code_of(self.error)

    @property
    def message(self) -> str:
        """The text of a refusal; empty if the call succeeded."""
        return "" if self.error is None else str(self.error)

    @property
    def trouble(self) -> tuple[Trouble, str] | None:
        """The kind of a refusal and its remedy, which may be empty; None if the call succeeded."""
        return None if self.error is None else trouble_of(self.code, self.message)

    @property
    def headers(self) -> Mapping[str, str]:
        """The HTTP headers of the response."""
        response = self.found if self.error is None else self.error.response
        headers: Mapping[str, str] = (response or {}).get("ResponseMetadata", {}).get("HTTPHeaders", {})
        return headers

    def unless(self, expected: Collection[str] = ()) -> Mapping[str, Any] | None:
        """Return the result; None after a refusal with one of the `expected` codes.

        Raises:
            TransientError: Any other refusal, translated as for a worker (`service.aws.translation`).
        """
        if self.error is None or self.code in expected:
            return self.found
        raise failure(self.error, self.what, "run `scoring setup`") or self.error from self.error


async def ask(what: str, call: Callable[..., Awaitable[Mapping[str, Any]]], params: Mapping[str, Any]) -> Answer:
    """Make a call; a refusal is returned, not raised.

    Args:
        what: The resource that is asked about, for messages.
        call: A client's method.
        params: Its arguments.

    Raises:
        TransientError: There was no answer, it cannot be read, or there are no credentials; as for a worker.
    """
    with translated(what):
        try:
            return Answer(what, found=await call(**params))
        except ClientError as error:
            return Answer(what, error=error)
