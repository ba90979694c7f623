"""Amazon Connect Customer Profiles, as far as scores need it: domains, object types, objects that become attributes.

It behaves as the API reference says (API_connect-customer-profiles_BatchPutProfileObject.html and others in
https://docs.aws.amazon.com/connect/latest/APIReference/): at most ten items, limits of names and sizes, an answer for
each item. An object is queued, and taken into the profile that its key finds. Where there is none, and the object type
may not create one, the object goes to the domain's dead-letter queue. An attribute that CreateProfile or UpdateProfile
has written is never overwritten by an object. A choice here, as it is not documented: objects are taken in at once, in
their order.

`tests/contract/test_customer_profiles_fake.py` compares it with botocore's model.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec
from aiohttp import web

from service.local.fake_server import FakeServer
from service.local.loopback import CREDENTIALS

MAX_ITEMS, MAX_OBJECT = 10, 256_000
_DOMAIN = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_ITEM_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_TYPE = re.compile(r"[a-zA-Z_][a-zA-Z_0-9-]{0,254}")
_BATCH = re.compile(r"/domains/([^/]+)/profiles/objects/batch-put-profile-object")
_OBJECT_TYPE = re.compile(r"/domains/([^/]+)/object-types/([^/]+)")
_ONE_DOMAIN = re.compile(r"/domains/([^/]+)")


_read_object = msgspec.json.Decoder(dict[str, Any], float_hook=str).decode


class RefusedError(Exception):
    """A request that is answered with an error: HTTP status, code and text."""

    def __init__(self, status: int, code: str, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.code = code


class Profile(msgspec.Struct):
    """A profile: what objects wrote, and the attributes that the API itself wrote."""

    attributes: dict[str, str] = {}
    own: dict[str, str] = {}


class Domain(msgspec.Struct):
    """A domain.

    Attributes:
        queue: URL of its dead-letter queue; empty: none.
        types: Object types by name, as they were put.
        profiles: By account number.
        dead: Objects that found no profile.
    """

    queue: str = ""
    types: dict[str, dict[str, Any]] = {}
    profiles: dict[str, Profile] = {}
    dead: list[dict[str, Any]] = []


class CustomerProfilesFake(FakeServer):
    """The service.

    Attributes:
        domains: By name.
        items: HTTP status of an item, by account number, where it is refused.
        batches: Number of items of each batch that was taken.
    """

    def __init__(self, domains: Mapping[str, Domain] | None = None, *, latency_s: float = 0.0) -> None:
        super().__init__(latency_s=latency_s)
        self.domains: dict[str, Domain] = dict(domains or {})
        self.items: dict[str, int] = {}
        self.batches: list[int] = []

    def environment(self) -> dict[str, str]:
        """Return the variables that point an AWS SDK at it."""
        return {**CREDENTIALS, "AWS_ENDPOINT_URL_CUSTOMER_PROFILES": self.url}

    def answer(self, request: web.Request, body: bytes) -> web.Response:
        """See `FakeServer`."""
        try:
            return web.json_response(self._carried_out(request.method, request.path, body))
        except RefusedError as error:
            headers = {"x-amzn-ErrorType": error.code}
            return web.json_response({"Message": str(error)}, status=error.status, headers=headers)

    def _carried_out(self, method: str, path: str, body: bytes) -> dict[str, Any]:
        if method == "PUT" and (found := _BATCH.fullmatch(path)):
            return self._batch(self._domain(found[1]), _read(body))
        if found := _OBJECT_TYPE.fullmatch(path):
            domain, name = self._domain(found[1]), found[2]
            if not _TYPE.fullmatch(name):
                raise _bad("ObjectTypeName")
            if method == "PUT":
                return self._put_type(domain, name, _read(body))
            if name in domain.types:
                return domain.types[name]
            raise RefusedError(404, "ResourceNotFoundException", f"object type {name} does not exist")
        if method == "GET" and (found := _ONE_DOMAIN.fullmatch(path)):
            domain = self._domain(found[1])
            answer = {"DomainName": found[1], "CreatedAt": 1_700_000_000, "LastUpdatedAt": 1_700_000_000}
            return answer | ({"DeadLetterQueueUrl": domain.queue} if domain.queue else {})
        raise RefusedError(404, "ResourceNotFoundException", "no such operation")

    def _domain(self, name: str) -> Domain:
        if not _DOMAIN.fullmatch(name):
            raise _bad("DomainName")
        if name not in self.domains:
            raise RefusedError(404, "ResourceNotFoundException", f"domain {name} does not exist")
        return self.domains[name]

    def _put_type(self, domain: Domain, name: str, given: dict[str, Any]) -> dict[str, Any]:
        days = given.get("ExpirationDays", 1)
        if not isinstance(given.get("Description"), str) or not given["Description"]:
            raise _bad("Description")
        if not isinstance(days, int) or not 1 <= days <= 1098:  # noqa: PLR2004 - the service's own limit
            raise _bad("ExpirationDays")
        domain.types[name] = {
            "ObjectTypeName": name,
            **given,
            "CreatedAt": 1_700_000_000,
            "LastUpdatedAt": 1_700_000_000,
        }
        return domain.types[name]

    def _batch(self, domain: Domain, given: dict[str, Any]) -> dict[str, Any]:
        name, items = given.get("ObjectTypeName"), given.get("Items")
        if not isinstance(name, str) or not _TYPE.fullmatch(name):
            raise _bad("ObjectTypeName")
        if not isinstance(items, list) or not 1 <= len(items) <= MAX_ITEMS:
            raise _bad("Items")
        for item in items:
            if not isinstance(item, dict) or not isinstance(item.get("Id"), str) or not _ITEM_ID.fullmatch(item["Id"]):
                raise _bad("Items.Id")
            if not isinstance(item.get("Object"), str) or not 1 <= len(item["Object"]) <= MAX_OBJECT:
                raise _bad("Items.Object")
        if name not in domain.types:
            raise RefusedError(404, "ResourceNotFoundException", f"object type {name} does not exist")
        self.batches.append(len(items))
        done, failed = [], []
        for item in items:
            code, text = self._take(domain, domain.types[name], item["Object"])
            if code:
                failed.append({"Id": item["Id"], "Code": code, "Message": text})
            else:
                done.append({"Id": item["Id"], "ProfileObjectUniqueKey": f"key-{item['Id']}"})
        return {"Successful": done, "Failed": failed}

    def _take(self, domain: Domain, kind: Mapping[str, Any], text: str) -> tuple[int, str]:
        """Take an object in; return the HTTP status and text where it is refused, else 0."""
        try:
            fields = _read_object(text)
        except msgspec.DecodeError:
            return 400, "the object is not JSON"
        account, values = "", {}
        for field in kind["Fields"].values():
            value = fields.get(field["Source"].removeprefix("_source."))
            target = field.get("Target", "")
            if value is None:
                continue
            if target == "_profile.AccountNumber":
                account = str(value)
            elif target.startswith("_profile.Attributes."):
                values[target.removeprefix("_profile.Attributes.")] = str(value)
        if account in self.items:
            return self.items[account], "refused"
        if not account:
            return 400, "the object has no key"
        if account not in domain.profiles:
            if not kind.get("AllowProfileCreation", False):
                domain.dead.append(fields)
                return 0, ""
            domain.profiles[account] = Profile()
        profile = domain.profiles[account]
        profile.attributes |= {name: value for name, value in values.items() if name not in profile.own}
        return 0, ""


def _read(body: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except msgspec.MsgspecError as error:
        raise RefusedError(400, "BadRequestException", f"the request is not valid: {error}") from None


def _bad(name: str) -> RefusedError:
    return RefusedError(400, "BadRequestException", f"{name} is not valid")
