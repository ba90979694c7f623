"""One HTTP POST: connections, addresses, certificates and limits. What an answer means is decided elsewhere."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Mapping

import aiohttp
import msgspec
from aiohttp.abc import AbstractResolver, ResolveResult

from service.observability.metrics import service_version
from service.runtime.errors import SetupError, TransientError, Trouble, TroubleError
from service.runtime.fields import Secret
from service.sinks.webhook.address import address_fault, is_loopback_host, shown_url

MAX_ANSWER_BYTES = 1024 * 1024
"""Of an answer, no more than this is read."""

CONNECTIONS = 16


class Reply(msgspec.Struct, frozen=True):
    """An answer.

    Attributes:
        status: HTTP status.
        body: Its first `MAX_ANSWER_BYTES`.
        retry_after: The header of that name; empty where there is none.
    """

    status: int
    body: bytes
    retry_after: str


class RefusedAddressError(OSError):
    """A name leads to an address that nothing is sent to."""


class GuardedResolver(AbstractResolver):
    """Resolves names, and refuses addresses that a webhook must not reach; the connection goes to what is returned.

    Args:
        resolver: What looks names up.
    """

    def __init__(self, resolver: AbstractResolver) -> None:
        self._resolver = resolver

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return where to connect to; see `AbstractResolver`.

        Raises:
            OSError: There is no such host, or one of its addresses is refused.
        """
        found = await self._resolver.resolve(host, port, family)
        allowed = is_loopback_host(host)
        for each in found:
            address = ipaddress.ip_address(each["host"].partition("%")[0])
            fault = address_fault(address, loopback_allowed=allowed)
            if fault:
                raise RefusedAddressError(f"its address {fault}")
        return found

    async def close(self) -> None:
        """Release it."""
        await self._resolver.close()


class WebhookClient:
    """Posts to one URL. Redirects are not followed, proxies and `.netrc` of the environment not used.

    Args:
        url: Where to.
        timeout_s: Longest time of a request, connection and answer included.
        ca_file: PEM file of authorities; empty: the system's.

    Raises:
        SetupError: The authorities cannot be read.
    """

    def __init__(
        self, url: Secret, *, timeout_s: float, ca_file: str = "", resolver: AbstractResolver | None = None
    ) -> None:
        self._url = url
        self.shown = shown_url(url.reveal())
        self._timeout_s = timeout_s
        try:
            context = ssl.create_default_context(cafile=ca_file or None)
        except (OSError, ssl.SSLError) as error:
            raise SetupError(
                f"SCORING_WEBHOOK_CA_FILE {ca_file!r} cannot be read: {error.strerror or 'it is not PEM'}",
                Trouble.CERTIFICATE,
            ) from error
        connector = aiohttp.TCPConnector(
            ssl=context, limit=CONNECTIONS, resolver=GuardedResolver(resolver or aiohttp.DefaultResolver())
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            trust_env=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": f"engagement-scoring/{service_version()}"},
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()

    async def post(self, body: bytes, headers: Mapping[str, str]) -> Reply:
        """Send a request once; return the answer, whatever its status.

        Raises:
            TransientError: No answer came in time. `undone` where no request was sent.
            TroubleError: The certificate is not trusted, or the address is refused.
        """
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                self._session.post(
                    self._url.reveal(), data=body, headers=dict(headers), allow_redirects=False
                ) as response,
            ):
                answer = await response.content.read(MAX_ANSWER_BYTES)
                return Reply(response.status, answer, response.headers.get("Retry-After", ""))
        except TimeoutError as error:
            raise TransientError(f"webhook {self.shown}: no answer within {self._timeout_s:g} s") from error
        except (aiohttp.ClientConnectorCertificateError, aiohttp.ClientConnectorSSLError) as error:
            # Not the error's own text: it names the whole URL's host only, but aiohttp's may change.
            remedy = "renew the receiver's certificate, or name its authority in SCORING_WEBHOOK_CA_FILE"
            raise TroubleError(
                f"webhook {self.shown}: the certificate is not trusted: {_reason(error)}", Trouble.CERTIFICATE, remedy
            ) from error
        except aiohttp.InvalidURL as error:
            remedy = "set SCORING_WEBHOOK_URL to a URL with a host name, or an address in its usual form"
            raise TroubleError(f"webhook {self.shown} cannot be used", Trouble.REFUSED, remedy) from error
        except aiohttp.ClientConnectorError as error:
            if isinstance(error.os_error, RefusedAddressError) or isinstance(error.__cause__, RefusedAddressError):
                remedy = "set SCORING_WEBHOOK_URL to a receiver that is neither this machine nor a metadata service"
                raise TroubleError(f"webhook {self.shown}: {error.os_error}", Trouble.REFUSED, remedy) from error
            text = f"webhook {self.shown}: cannot connect: {error.os_error.strerror or type(error).__name__}"
            raise TransientError(text, undone=True) from error
        except aiohttp.ClientError as error:
            raise TransientError(f"webhook {self.shown}: {type(error).__name__}") from error
        except OSError as error:
            raise TransientError(f"webhook {self.shown}: {error.strerror or type(error).__name__}") from error


def _reason(error: aiohttp.ClientConnectorCertificateError | aiohttp.ClientConnectorSSLError) -> str:
    cause = getattr(error, "certificate_error", None) or getattr(error, "os_error", None)
    return getattr(cause, "verify_message", "") or getattr(cause, "reason", "") or type(cause).__name__
