"""Explains botocore's errors to a person: what failed, why, and what to do."""

from __future__ import annotations

import os

import msgspec
from botocore import exceptions as boto

from service.aws.translation import (
    DENIED,
    EXPIRED_CREDENTIALS,
    FOREIGN_REMEDY,
    MISSING,
    THROTTLES,
    UnreadableAnswerError,
    code_of,
    trouble_of,
)
from service.runtime.errors import Trouble

AWS_ERRORS = (boto.BotoCoreError, boto.ClientError)
"""The errors that `explained` handles."""

_NO_SUCH = MISSING | {"NotFoundException", "NoSuchEntity"}
_WHAT = {
    Trouble.CLOCK: "AWS does not accept the time of this machine",
    Trouble.CREDENTIALS: "AWS does not accept the credentials",
    Trouble.ENCRYPTION: "AWS cannot use the encryption key",
}


class Explained(msgspec.Struct, frozen=True):
    """An error as message, cause and remedy; the last two may be empty."""

    what: str
    why: str = ""
    remedy: str = ""


def explained(error: BaseException) -> Explained | None:
    """Return the explanation of a botocore error; None for any other."""
    match error:
        case boto.ClientError():
            return _refused(error)
        case boto.BotoCoreError():
            return _unreachable(error)
    return None


def _unreachable(error: boto.BotoCoreError) -> Explained:
    """Return the explanation if no answer came, or no request could be made."""
    text = str(error).rstrip(".")
    match error:
        case boto.NoCredentialsError() | boto.PartialCredentialsError() | boto.CredentialRetrievalError():
            return Explained(
                "AWS cannot be called: there are no usable credentials",
                text,
                "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give the task a role",
            )
        case boto.NoRegionError():
            return Explained(
                "AWS cannot be called: no region is set", remedy="set AWS_REGION, for example to us-east-1"
            )
        case boto.ProfileNotFound():
            return Explained(
                "AWS cannot be called", text, "set AWS_PROFILE to a profile that `aws configure list-profiles` shows"
            )
        case boto.TokenRetrievalError() | boto.SSOTokenLoadError() | boto.UnauthorizedSSOTokenError():
            return Explained("AWS cannot be called: the sign-in has expired", text, "run: aws sso login")
        case boto.HTTPClientError() | boto.ConnectionError():
            chosen = sorted(name for name in os.environ if name.startswith("AWS_ENDPOINT_URL"))
            remedy = f"check {', '.join(chosen)}" if chosen else "check the network, the region, and the proxy settings"
            return Explained("AWS cannot be reached", text, remedy)
        case UnreadableAnswerError():
            return Explained("what answered is not AWS", text, FOREIGN_REMEDY)
        case boto.ParamValidationError():
            return Explained("AWS does not accept this request", text)
    return Explained("AWS cannot be called", text)


def _refused(error: boto.ClientError) -> Explained:
    """Return the explanation if AWS answered with an error."""
    code = code_of(error)
    why = f"{code}: {str(error.response.get('Error', {}).get('Message') or 'no reason given').rstrip('.')}"
    call = error.operation_name
    if code in _NO_SUCH:
        return Explained(
            f"the resource of {call} does not exist",
            why,
            "run `scoring setup` to create it, or check the SCORING_ variable that names it, and the region",
        )
    if code in THROTTLES:
        return Explained(f"AWS throttles {call}", why, "try again in a while, or raise the quota or capacity")
    kind, remedy = trouble_of(code, why)
    if code in EXPIRED_CREDENTIALS and kind is Trouble.CREDENTIALS:
        return Explained("the AWS credentials have expired", why, remedy)
    if code in DENIED and kind not in _WHAT:
        return Explained(f"AWS does not allow {call}", why, f"give this role or user a policy that allows {call}")
    return Explained(_WHAT.get(kind, f"{call} failed"), why, remedy)
