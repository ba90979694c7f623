"""The credentials that our calls are signed with, from a session that nothing of ours has changed.

botocore's providers make clients of their own: STS for a role or a web identity, SSO for a sign-in. What our session
sets for our calls (how times are read, which models are loaded) must not reach them.

Whatever a provider raises may pass: a metadata service that starts later than we do, a token file that is being
replaced, a cache file half-written by another process. All of it becomes botocore's `CredentialRetrievalError`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

from aiobotocore.session import AioSession
from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import CredentialRetrievalError, NoCredentialsError


class Credentials:
    """What an aiobotocore client asks for credentials: found once, renewed by their provider.

    Args:
        region: Of STS and SSO where the profile names none: botocore reads AWS_DEFAULT_REGION, not AWS_REGION.
    """

    def __init__(self, region: str = "") -> None:
        self._session = AioSession()
        if region:
            self._session.set_config_variable("region", region)
        self._provider: Any = None
        self._finding = asyncio.Lock()

    async def find(self) -> None:
        """Ask the providers which of them has credentials; one that fails is asked again at the first call."""
        with contextlib.suppress(NoCredentialsError, CredentialRetrievalError):
            await self.get_frozen_credentials()

    async def get_frozen_credentials(self) -> ReadOnlyCredentials:
        """Return what to sign with now.

        Raises:
            NoCredentialsError: No provider has any.
            CredentialRetrievalError: A provider failed, whatever it raised.
        """
        try:
            async with self._finding:
                if self._provider is None:
                    self._provider = await self._session.get_credentials()
            frozen: ReadOnlyCredentials | None = (
                None if self._provider is None else await self._provider.get_frozen_credentials()
            )
        except CredentialRetrievalError:
            raise
        except Exception as error:
            name = getattr(self._provider, "method", "") or "a credential provider"
            raise CredentialRetrievalError(provider=name, error_msg=f"{type(error).__name__}: {error}") from error
        if frozen is None:
            raise NoCredentialsError
        return frozen

    def get_deferred_property(self, name: str) -> Callable[[], object]:
        """Return how to get a property of the credentials once they are there; botocore asks for `account_id`."""
        return lambda: getattr(self._provider, name, None)

    async def get_account_id(self) -> str | None:
        """Return the account that the credentials are of, where their provider says it; aiobotocore asks."""
        frozen = await self.get_frozen_credentials()
        account: str | None = getattr(frozen, "account_id", None)
        return account


class SigningSession(AioSession):  # type: ignore[misc] # aiobotocore has no types
    """A session whose clients sign with `Credentials`: a provider that fails keeps no client from being made."""

    def __init__(self, credentials: Credentials) -> None:
        super().__init__()
        self._signing = credentials

    async def get_credentials(self) -> Credentials:
        """Return the credentials; aiobotocore calls this for every client it makes."""
        await self._signing.find()
        return self._signing
