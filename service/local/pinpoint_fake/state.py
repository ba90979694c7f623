"""Pure: what Pinpoint knows of applications, endpoints and users, and how requests change it. `now` is an argument.

Sources, and what is decided here where AWS's pages leave it open:

- UpdateEndpoint "creates a new endpoint or updates the settings of an existing endpoint"; "if an update includes one
  or more values for a custom attribute, Amazon Pinpoint replaces (overwrites) any existing values with the new values"
  (https://docs.aws.amazon.com/pinpoint/latest/apireference/apps-application-id-endpoints-endpoint-id.html). So fields
  that are not in the request stay, Attributes, Metrics and UserAttributes are merged by name, and the values of a
  named one are replaced. Decided: Demographic and Location are merged by member; `[]` leaves an attribute without
  values.
- EndpointStatus (same page): "Amazon Pinpoint automatically sets this value to ACTIVE when you create an endpoint or
  update an existing endpoint" (unless the request gives it), and "to INACTIVE if you update another endpoint that has
  the same address specified by the Address property". Decided: only an update that carries the Address does that.
- User attributes belong to the user: every endpoint with the same UserId shows the same
  (https://docs.aws.amazon.com/pinpoint/latest/developerguide/audience-define-user.html). Decided: an endpoint that
  moves to another UserId shows the other user's attributes; a user without endpoints is forgotten.
- Endpoint ids are case-insensitive and cannot contain `$`, `{` or `}` (UpdateEndpoint's parameter EndpointId).
- A 16th endpoint of a user: refused for SMS, PUSH, VOICE, EMAIL, CUSTOM, IN_APP; for the push services the user's
  push endpoint with the oldest EffectiveDate becomes INACTIVE and loses its UserId
  (https://docs.aws.amazon.com/pinpoint/latest/developerguide/audience-define-auto-inactive.html).
- UpdateEndpointsBatch answers 202 without a result per item. Decided: wrong shapes and attribute quotas refuse the
  whole batch (AWS answers 400 to those); an item that the rule of 15 refuses is dropped, and only `dropped` here tells.

Bounded by nothing but what is sent: this is a fake for tests and demos.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar

import msgspec

from service.local.pinpoint_fake import shapes
from service.local.pinpoint_fake.refusals import PinpointError, bad_request, not_found

T = TypeVar("T", bound=msgspec.Struct)
ACCOUNT = "000000000000"
FORBIDDEN_IN_IDS = frozenset("${}")
REPLACEABLE_CHANNELS = frozenset({"ADM", "GCM", "APNS", "APNS_SANDBOX", "APNS_VOIP", "APNS_VOIP_SANDBOX", "BAIDU"})
"""Channels whose oldest endpoint makes room for a 16th. (AWS's page forgets APNS_SANDBOX.)"""
DROPPED_KEPT = 100
"""Reasons of dropped batch items that are kept."""
MAX_PAGE = 1000


def iso(now: datetime) -> str:
    """`now` (UTC) as Pinpoint writes times: milliseconds and Z."""
    return now.strftime("%Y-%m-%dT%H:%M:%S.") + f"{now.microsecond // 1000:03d}Z"


@dataclass(slots=True)
class _UserRecord:
    user: shapes.User
    endpoints: dict[str, shapes.Endpoint] = field(default_factory=dict)


@dataclass(slots=True)
class _App:
    application: shapes.Application
    endpoints: dict[str, shapes.Endpoint] = field(default_factory=dict)
    users: dict[str, _UserRecord] = field(default_factory=dict)
    by_address: dict[str, dict[str, shapes.Endpoint]] = field(default_factory=dict)
    names: dict[str, set[str]] = field(
        default_factory=lambda: {"Attributes": set(), "Metrics": set(), "UserAttributes": set()}
    )
    event_stream: shapes.EventStream | None = None


class PinpointState:
    """All applications of one account and region."""

    def __init__(self, *, region: str = "us-east-1") -> None:
        self._region = region
        self._apps: dict[str, _App] = {}
        self._serial = 0
        self.dropped: int = 0
        """Batch items that were accepted with 202 and then refused by the rule of 15."""
        self.dropped_reasons: deque[str] = deque(maxlen=DROPPED_KEPT)

    def request_id(self) -> str:
        """The next request id; ids are consecutive so that runs can be compared."""
        self._serial += 1
        return f"00000000-0000-4000-8000-{self._serial:012x}"

    # Applications

    def create_app(
        self, name: str, now: datetime, *, app_id: str | None = None, tags: dict[str, str] | None = None
    ) -> shapes.Application:
        """CreateApp. `app_id` (not in the API) fixes the project id; otherwise it is 32 hex digits."""
        if app_id is None:
            self._serial += 1
            app_id = f"{zlib.crc32(name.encode()):08x}{self._serial:024x}"
        if app_id in self._apps:
            raise bad_request(f"there is an application {app_id} already")
        application = shapes.Application(
            id=app_id,
            arn=f"arn:aws:mobiletargeting:{self._region}:{ACCOUNT}:apps/{app_id}",
            name=name,
            creation_date=iso(now),
            tags=tags,
        )
        self._apps[app_id] = _App(application)
        return application

    def get_app(self, app_id: str) -> shapes.Application:
        """GetApp."""
        return self._app(app_id).application

    def get_apps(self, page_size: str | None = None, token: str | None = None) -> shapes.ApplicationsResponse:
        """GetApps: both parameters are strings in the API."""
        try:
            size, start = int(page_size or 100), int(token or 0)
        except ValueError:
            raise bad_request("page-size or token is not valid") from None
        if not 1 <= size <= MAX_PAGE or start < 0:
            raise bad_request("page-size or token is not valid")
        apps = [app.application for app in self._apps.values()]
        more = str(start + size) if start + size < len(apps) else None
        return shapes.ApplicationsResponse(item=apps[start : start + size], next_token=more)

    def delete_app(self, app_id: str) -> shapes.Application:
        """DeleteApp, with everything in it."""
        app = self._app(app_id)
        del self._apps[app_id]
        return app.application

    def _app(self, app_id: str) -> _App:
        app = self._apps.get(app_id)
        if app is None:
            raise not_found("Resource not found: no such application")
        return app

    # Event streams: remembered, not served

    def put_event_stream(self, app_id: str, request: shapes.WriteEventStream, now: datetime) -> shapes.EventStream:
        """PutEventStream."""
        app = self._app(app_id)
        app.event_stream = shapes.EventStream(
            application_id=app_id,
            destination_stream_arn=request.destination_stream_arn,
            role_arn=request.role_arn,
            last_modified_date=iso(now),
        )
        return app.event_stream

    def get_event_stream(self, app_id: str) -> shapes.EventStream:
        """GetEventStream."""
        stream = self._app(app_id).event_stream
        if stream is None:
            raise not_found("Resource not found: the application has no event stream")
        return stream

    def delete_event_stream(self, app_id: str) -> shapes.EventStream:
        """DeleteEventStream."""
        stream = self.get_event_stream(app_id)
        self._app(app_id).event_stream = None
        return stream

    # Endpoints

    def get_endpoint(self, app_id: str, endpoint_id: str) -> shapes.Endpoint:
        """GetEndpoint; 404 when there is none."""
        endpoint = self._app(app_id).endpoints.get(endpoint_id.lower())
        if endpoint is None:
            raise not_found("Resource not found: no such endpoint")
        return endpoint

    def get_user_endpoints(self, app_id: str, user_id: str) -> shapes.EndpointsResponse:
        """GetUserEndpoints, oldest first; 404 when the user has none."""
        record = self._app(app_id).users.get(user_id)
        if record is None:
            raise not_found("Resource not found: no such user")
        return shapes.EndpointsResponse(item=list(record.endpoints.values()))

    def delete_endpoint(self, app_id: str, endpoint_id: str) -> shapes.Endpoint:
        """DeleteEndpoint: answers what was deleted."""
        endpoint = self.get_endpoint(app_id, endpoint_id)
        app = self._app(app_id)
        _leave_user(app, endpoint, keep_user=True)
        _leave_address(app, endpoint)
        del app.endpoints[endpoint_id.lower()]
        return endpoint

    def delete_user_endpoints(self, app_id: str, user_id: str) -> shapes.EndpointsResponse:
        """DeleteUserEndpoints: answers what was deleted."""
        deleted = self.get_user_endpoints(app_id, user_id)
        app = self._app(app_id)
        for endpoint in deleted.item:
            _leave_address(app, endpoint)
            del app.endpoints[endpoint.id.lower()]
        del app.users[user_id]
        return deleted

    def update_endpoint(self, app_id: str, endpoint_id: str, request: shapes.EndpointRequest, now: datetime) -> str:
        """UpdateEndpoint: create or update; the request id. The rules are at the top of this file."""
        app = self._app(app_id)
        _check_id(endpoint_id)
        _check_dates([request])
        _learn_names(app, [request])
        request_id = self.request_id()
        _update(app, endpoint_id, request, now, request_id)
        return request_id

    def update_endpoints_batch(self, app_id: str, items: Sequence[shapes.EndpointRequest], now: datetime) -> str:
        """UpdateEndpointsBatch: up to 100 items in order; the request id. What an item came to is not said."""
        app = self._app(app_id)
        if not 1 <= len(items) <= shapes.MAX_BATCH_ITEMS:
            raise bad_request(f"a batch has 1 to {shapes.MAX_BATCH_ITEMS} endpoints, this one {len(items)}")
        for item in items:
            _check_id(item.id or "")
        _check_dates(items)
        _learn_names(app, items)
        request_id = self.request_id()
        for item in items:
            try:
                _update(app, item.id or "", item, now, request_id)
            except PinpointError as error:
                self.dropped += 1
                self.dropped_reasons.append(str(error))
        return request_id

    def put_events(self, app_id: str, request: shapes.EventsRequest, now: datetime) -> shapes.EventsResponse:
        """PutEvents: updates the endpoints that come with the events; the events themselves go nowhere."""
        self._app(app_id)
        results = {}
        for endpoint_id, batch in request.batch_item.items():
            answer = shapes.ItemAnswer(message="Accepted", status_code=202)
            try:
                self.update_endpoint(app_id, endpoint_id, batch.endpoint, now)
            except PinpointError as error:
                answer = shapes.ItemAnswer(message=str(error), status_code=error.status)
            accepted = {event_id: shapes.ItemAnswer(message="Accepted", status_code=202) for event_id in batch.events}
            results[endpoint_id] = shapes.ItemResponse(endpoint_item_response=answer, events_item_response=accepted)
        return shapes.EventsResponse(results=results)

    def all_endpoints(self, app_id: str | None = None) -> Iterator[shapes.Endpoint]:
        """Every endpoint with its user's attributes, of one application or of all (not in the API)."""
        for app in list(self._apps.values()) if app_id is None else [self._app(app_id)]:
            yield from list(app.endpoints.values())


def _check_id(endpoint_id: str) -> None:
    if not endpoint_id or FORBIDDEN_IN_IDS & set(endpoint_id):
        raise bad_request("an endpoint id must not be empty and must not contain $, { or }")


def _check_dates(requests: Sequence[shapes.EndpointRequest]) -> None:
    for request in requests:
        if request.effective_date is not None:
            try:
                datetime.fromisoformat(request.effective_date)
            except ValueError:
                raise bad_request(f"EffectiveDate is not ISO 8601: {request.effective_date[:40]!r}") from None


def _learn_names(app: _App, requests: Sequence[shapes.EndpointRequest]) -> None:
    """Refuse the request when an application would have more than 250 names of one kind; else remember them."""
    learned = {kind: set(names) for kind, names in app.names.items()} if requests else {}
    for request in requests:
        learned["Attributes"].update(request.attributes or ())
        learned["Metrics"].update(request.metrics or ())
        learned["UserAttributes"].update((request.user.user_attributes or ()) if request.user else ())
    for kind, names in learned.items():
        if len(names) > shapes.MAX_ATTRIBUTE_NAMES:
            raise bad_request(f"an application has at most {shapes.MAX_ATTRIBUTE_NAMES} names in {kind}")
    app.names.update(learned)


def _update(
    app: _App, endpoint_id: str, request: shapes.EndpointRequest, now: datetime, request_id: str
) -> shapes.Endpoint:
    key = endpoint_id.lower()
    endpoint = app.endpoints.get(key)
    user_id = request.user.user_id if request.user else None
    if user_id:
        _make_room(app, key, user_id, request.channel_type or (endpoint.channel_type if endpoint else None))
    if endpoint is None:
        endpoint = app.endpoints[key] = shapes.Endpoint(
            id=endpoint_id,
            application_id=app.application.id,
            cohort_id=str(zlib.crc32(key.encode()) % 100),
            creation_date=iso(now),
            effective_date=iso(now),
            endpoint_status="ACTIVE",
            opt_out="NONE",
            request_id=request_id,
        )
    endpoint.request_id = request.request_id or request_id
    endpoint.effective_date = request.effective_date or iso(now)
    endpoint.endpoint_status = request.endpoint_status or "ACTIVE"
    endpoint.opt_out = request.opt_out or endpoint.opt_out
    if request.address is not None:
        _readdress(app, key, endpoint, request.address)
    endpoint.channel_type = request.channel_type or endpoint.channel_type
    if request.attributes is not None:
        endpoint.attributes = (endpoint.attributes or {}) | request.attributes
    if request.metrics is not None:
        endpoint.metrics = (endpoint.metrics or {}) | request.metrics
    if request.demographic is not None:
        endpoint.demographic = _merge_into(endpoint.demographic or shapes.Demographic(), request.demographic)
    if request.location is not None:
        endpoint.location = _merge_into(endpoint.location or shapes.Location(), request.location)
    if request.user is not None:
        _update_user(app, key, endpoint, request.user)
    return endpoint


def _readdress(app: _App, key: str, endpoint: shapes.Endpoint, address: str) -> None:
    """Give the endpoint its address, and make every other endpoint with that address INACTIVE."""
    _leave_address(app, endpoint)
    endpoint.address = address
    if not address:
        return
    sharing = app.by_address.setdefault(address, {})
    for other in sharing.values():
        other.endpoint_status = "INACTIVE"
    sharing[key] = endpoint


def _leave_address(app: _App, endpoint: shapes.Endpoint) -> None:
    sharing = app.by_address.get(endpoint.address or "")
    if sharing is not None:
        sharing.pop(endpoint.id.lower(), None)
        if not sharing:
            del app.by_address[endpoint.address or ""]


def _merge_into(old: T, new: T) -> T:
    for name in new.__struct_fields__:
        if getattr(new, name) is not None:
            setattr(old, name, getattr(new, name))
    return old


def _update_user(app: _App, key: str, endpoint: shapes.Endpoint, requested: shapes.User) -> None:
    if requested.user_id and (endpoint.user is None or endpoint.user.user_id != requested.user_id):
        _leave_user(app, endpoint)
        record = app.users.setdefault(requested.user_id, _UserRecord(shapes.User(user_id=requested.user_id)))
        record.endpoints[key] = endpoint
        endpoint.user = record.user
    if requested.user_attributes is not None:
        if endpoint.user is None:
            endpoint.user = shapes.User()
        endpoint.user.user_attributes = (endpoint.user.user_attributes or {}) | requested.user_attributes


def _leave_user(app: _App, endpoint: shapes.Endpoint, *, keep_user: bool = False) -> None:
    user = endpoint.user
    if user is None or user.user_id is None:
        return
    record = app.users[user.user_id]
    record.endpoints.pop(endpoint.id.lower(), None)
    if not record.endpoints:
        del app.users[user.user_id]
    if not keep_user:
        endpoint.user = None


def _make_room(app: _App, key: str, user_id: str, channel: str | None) -> None:
    """Apply the rule of 15 before endpoint `key` joins the user; raises BadRequestException when there is no room."""
    record = app.users.get(user_id)
    if record is None or key in record.endpoints or len(record.endpoints) < shapes.MAX_ENDPOINTS_PER_USER:
        return
    replaceable = [e for e in record.endpoints.values() if e.channel_type in REPLACEABLE_CHANNELS]
    if channel not in REPLACEABLE_CHANNELS or not replaceable:
        raise bad_request(f"the user has {shapes.MAX_ENDPOINTS_PER_USER} endpoints, which is the maximum")
    oldest = min(replaceable, key=lambda e: datetime.fromisoformat(e.effective_date).timestamp())
    oldest.endpoint_status = "INACTIVE"
    _leave_user(app, oldest)
