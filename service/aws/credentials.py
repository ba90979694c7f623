"""The credentials that sign our calls, from an unmodified session.

botocore's providers create clients of their own: STS for a role or a web identity, SSO for a sign-in. The settings of
our session (how times are parsed, which models are loaded) must not affect them.

Whatever a provider raises may be temporary: a metadata service that starts later than this process, a token file that
is being replaced, a cache file half-written by another process. All of it becomes botocore's
`CredentialRetrievalError`.

Calls do not wait for a renewal while the current credentials are valid. botocore renews them from 15 minutes before
they expire, in whichever call comes first (`RefreshableCredentials._refresh`); a slow security token service would
then delay a heartbeat, and cost the worker its leases. Here a task renews them; a call waits for `WAIT_S` at most and
then uses the current ones. A failed renewal is repeated after `AGAIN_S`, not in every call.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from typing import Any

from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import (
    CredentialRetrievalError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
)
from botocore.session import Session

from service.aws.translation import CREDENTIALS_REMEDY, note_trouble, said
from service.runtime.errors import Trouble, TroubleError

WAIT_S = 1.0
"""Longest wait of a call for a renewal while there are valid credentials, seconds."""

TIMEOUT_S = 30.0
"""Longest wait of a call without credentials, seconds: a `credential_process` may hang forever."""

AGAIN_S = 5.0
"""Seconds without a new renewal after one failed or was slow, while there are valid credentials."""

CLOSE_S = 0.5
"""Longest wait for a renewal at the end, seconds."""

WINDOWS_S = (300, 60, 10)
"""Seconds before their end from which credentials are renewed that live for less than 15 minutes when they are new: the
first that they are not in yet. The shortest session of STS lives for 15 minutes
(https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html)."""

CONNECT_TIMEOUT_S = 3.0
READ_TIMEOUT_S = 5.0
"""Of calls to STS and SSO. botocore waits 60 s for each of up to five attempts; a worker would look dead meanwhile."""


class Credentials:
    """The credentials of an aiobotocore client: found at the first call, renewed by their provider.

    Args:
        region: Region of STS and SSO if the profile has none: botocore reads AWS_DEFAULT_REGION, not AWS_REGION.
        monotonic: Seconds.
    """

    def __init__(self, region: str = "", monotonic: Callable[[], float] = time.monotonic) -> None:
        self._session = AioSession()
        if region:
            self._session.set_config_variable("region", region)
        self._session.set_default_client_config(
            AioConfig(connect_timeout=CONNECT_TIMEOUT_S, read_timeout=READ_TIMEOUT_S)
        )
        self._monotonic = monotonic
        self._provider: Any = None
        self._in_hand: ReadOnlyCredentials | None = None
        self._window_s: int | None = None
        self._not_before = float("-inf")
        self._renewal: asyncio.Task[ReadOnlyCredentials] | None = None

    async def get_frozen_credentials(self) -> ReadOnlyCredentials:
        """Return the current credentials.

        Raises:
            NoCredentialsError: No provider has any.
            PartialCredentialsError: The environment or a profile has only one half of a pair.
            CredentialRetrievalError: A provider failed.
        """
        if self._in_hand is not None and (not self._due() or self._monotonic() < self._not_before):
            return self._in_hand
        if self._renewal is None:
            self._renewal = asyncio.create_task(self._renew(), name="renewal of credentials")
            self._renewal.add_done_callback(self._renewed)
        renewal = asyncio.shield(self._renewal)
        try:
            async with asyncio.timeout(TIMEOUT_S if self._in_hand is None else WAIT_S):
                return await renewal
        except TimeoutError as error:
            self._not_before = self._monotonic() + AGAIN_S
            if self._in_hand is None:
                name = self._name()
                raise CredentialRetrievalError(provider=name, error_msg=f"no answer in {TIMEOUT_S:g} s") from error
        except (CredentialRetrievalError, NoCredentialsError):
            if self._in_hand is None:
                raise
        return self._in_hand

    async def close(self) -> None:
        """Wait for a renewal in progress, then cancel it: otherwise a `credential_process` would be left behind."""
        renewal = self._renewal
        if renewal is not None:
            await asyncio.wait((renewal,), timeout=CLOSE_S)
            renewal.cancel()
            await asyncio.wait((renewal,))

    def _name(self) -> str:
        return getattr(self._provider, "method", "") or "a credential provider"

    def _due(self) -> bool:
        """Return whether the credentials need a renewal; those that never expire do not."""
        due = getattr(self._provider, "refresh_needed", None)
        return bool(due(self._window_s)) if due is not None else False

    async def _renew(self) -> ReadOnlyCredentials:
        try:
            if self._provider is None:
                self._provider = await self._session.get_credentials()
            frozen: ReadOnlyCredentials | None = (
                None if self._provider is None else await self._provider.get_frozen_credentials()
            )
        except (CredentialRetrievalError, PartialCredentialsError):
            raise
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            raise CredentialRetrievalError(provider=self._name(), error_msg=text) from error
        if frozen is None:
            raise NoCredentialsError
        self._take(frozen)
        return frozen

    def _take(self, frozen: ReadOnlyCredentials) -> None:
        new = frozen != self._in_hand
        self._in_hand, self._window_s, self._not_before = frozen, None, float("-inf")
        if not self._due():
            return
        if new:
            self._window_s = next((each for each in WINDOWS_S if not self._provider.refresh_needed(each)), None)
        else:  # a container's agent returns the same credentials until shortly before they expire
            self._not_before = self._monotonic() + AGAIN_S

    def _renewed(self, renewal: asyncio.Task[ReadOnlyCredentials]) -> None:
        """Report a failed renewal while the credentials are still valid, so that no call fails yet."""
        self._renewal = None
        error = None if renewal.cancelled() else renewal.exception()
        if error is not None and self._in_hand is not None:
            self._not_before = self._monotonic() + AGAIN_S
            what = "credentials, which are used until they end: their renewal"
            note_trouble(TroubleError(said(what, error), Trouble.CREDENTIALS, CREDENTIALS_REMEDY))

    def get_deferred_property(self, name: str) -> Callable[[], object]:
        """Return a getter for a property of the credentials; botocore asks for `account_id`."""
        return lambda: getattr(self._in_hand, name, None)

    async def get_account_id(self) -> str | None:
        """Return the account of the credentials if their provider knows it; for aiobotocore."""
        frozen = await self.get_frozen_credentials()
        account: str | None = getattr(frozen, "account_id", None)
        return account


class SigningSession(AioSession):  # type: ignore[misc] # aiobotocore has no types
    """A session whose clients sign with `Credentials`, so that creating a client does not depend on a provider."""

    def __init__(self, credentials: Credentials) -> None:
        super().__init__()
        self._signing = credentials

    async def get_credentials(self) -> Credentials:
        """Return the credentials; aiobotocore calls this for every new client."""
        return self._signing


def may_come_later() -> bool:
    """Return whether credentials may appear later: those of an instance, from its metadata service."""
    return os.environ.get("AWS_EC2_METADATA_DISABLED", "").lower() != "true"


def profile_region() -> str | None:
    """Return the region of the current profile; None if the profile has no region or does not exist."""
    try:
        return Session().get_config_variable("region") or None
    except ProfileNotFound:
        return None  # the first call reports it
