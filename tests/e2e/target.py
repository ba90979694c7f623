"""Which AWS the end-to-end suite works on. `choose` is pure: what it does not name in so many words is never touched.

| how it is run | AWS |
|---|---|
| by `pytest`, `make test` | the embedded one, whatever the environment says |
| `make e2e` | where `AWS_ENDPOINT_URL...` point; the embedded one where none is set |
| `make e2e AWS=real` | AWS itself, in the region and with the credentials that any SDK would use |

Pinpoint is the project's fake, in a child process, unless `AWS_ENDPOINT_URL_PINPOINT` names another: LocalStack has
none, and AWS ended its own on 2026-10-30.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from enum import StrEnum

import msgspec

from service.local.loopback import CREDENTIALS, REGION

VARIABLE = "E2E_AWS"
"""Set by `make e2e` only: `environment` or `real`."""

GENERAL = "AWS_ENDPOINT_URL"
NEEDED = ("AWS_ENDPOINT_URL_KINESIS", "AWS_ENDPOINT_URL_DYNAMODB", "AWS_ENDPOINT_URL_DYNAMODB_STREAMS")
PINPOINT = "AWS_ENDPOINT_URL_PINPOINT"
IGNORED = "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS"
_SIGNERS = ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_DEFAULT_PROFILE")


class Kind(StrEnum):
    """What answers."""

    EMBEDDED = "the embedded AWS"
    ENDPOINTS = "the AWS that AWS_ENDPOINT_URL names"
    REAL = "AWS itself"


class Target(msgspec.Struct, frozen=True):
    """The AWS to work on.

    Attributes:
        kind: What answers.
        environment: The variables, `AWS_` and others, that every process of the suite gets; for the embedded AWS its
            own come on top.
        own_pinpoint: Whether the Pinpoint fake must be started.
    """

    kind: Kind
    environment: Mapping[str, str]
    own_pinpoint: bool

    def __str__(self) -> str:
        shown = ("AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", GENERAL, *NEEDED, PINPOINT)
        named = [f"{name}={self.environment[name]}" for name in shown if self.environment.get(name)]
        return " ".join([str(self.kind), *named])


class TargetError(Exception):
    """The environment does not say clearly which AWS is meant; nothing was called."""


def choose(environ: Mapping[str, str]) -> Target:
    """Return the AWS that `environ` names.

    Raises:
        TargetError: It contradicts itself, or would send some calls to an emulator and others to AWS.
    """
    asked = environ.get(VARIABLE, "")
    if asked not in ("", "environment", "real"):
        raise TargetError(
            f"{VARIABLE}={asked} is neither `environment` nor `real`: run `make e2e` or `make e2e AWS=real`"
        )
    kept = {name: value for name, value in environ.items() if not name.startswith(("SCORING_", "E2E_"))}
    named = sorted(name for name in (GENERAL, *NEEDED) if kept.get(name))
    if asked == "real":
        if named:
            raise TargetError(f"AWS=real, but {', '.join(named)} is set: unset it, or leave AWS=real out")
        return Target(Kind.REAL, kept, own_pinpoint=not kept.get(PINPOINT))
    if asked and named:
        return _endpoints(kept)
    without = {name: value for name, value in kept.items() if not name.startswith("AWS_")}
    return Target(Kind.EMBEDDED, without, own_pinpoint=True)


def _endpoints(kept: dict[str, str]) -> Target:
    missing = [name for name in NEEDED if not kept.get(name)]
    if missing and not kept.get(GENERAL):
        raise TargetError(
            f"{', '.join(missing)} is not set: those calls would go to AWS itself; set {GENERAL} or all of it"
        )
    if kept.get(IGNORED, "").lower() == "true":
        raise TargetError(f"{IGNORED}=true: every call would go to AWS itself")
    urls = [kept.get(name) or kept[GENERAL] for name in NEEDED]
    if all(url.startswith("http://") for url in urls):
        # Emulators: they take any credentials and region, and nobody's own are sent in clear.
        if not any(kept.get(name) for name in _SIGNERS):
            kept |= {name: value for name, value in CREDENTIALS.items() if "REGION" not in name}
        if not kept.get("AWS_REGION") and not kept.get("AWS_DEFAULT_REGION"):
            kept |= {"AWS_REGION": REGION}
    return Target(Kind.ENDPOINTS, kept, own_pinpoint=not kept.get(PINPOINT))


if __name__ == "__main__":
    try:
        sys.stderr.write(f"end to end on {choose(os.environ)}\n")
    except TargetError as unclear:
        sys.exit(f"error: {unclear}")
