"""Pure: the shapes of Amazon Pinpoint's REST API that the fake speaks, with the limits that AWS documents.

Names and types are those of botocore's `pinpoint` model (2016-12-01); limits are those of
https://docs.aws.amazon.com/pinpoint/latest/developerguide/quotas.html.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

MAX_ATTRIBUTE_NAME = 50
"""Characters of an attribute name."""
MAX_ATTRIBUTE_VALUE = 100
"""Characters of an attribute value."""
MAX_ATTRIBUTE_VALUES = 50
"""Values of one attribute."""
MAX_ATTRIBUTE_NAMES = 250
"""Names per application, for each of Attributes, Metrics and UserAttributes."""
MAX_BATCH_ITEMS = 100
"""Endpoints in one UpdateEndpointsBatch."""
MAX_PAYLOAD_BYTES = 7_000_000
"""Bytes of a request; AWS says 7 MB, and the smaller reading is the safe one for a client."""
MAX_ENDPOINTS_PER_USER = 15

Name = Annotated[str, Meta(min_length=1, max_length=MAX_ATTRIBUTE_NAME)]
Value = Annotated[str, Meta(max_length=MAX_ATTRIBUTE_VALUE)]
Values = Annotated[list[Value], Meta(max_length=MAX_ATTRIBUTE_VALUES)]
Channel = Literal[
    "PUSH",
    "GCM",
    "APNS",
    "APNS_SANDBOX",
    "APNS_VOIP",
    "APNS_VOIP_SANDBOX",
    "ADM",
    "SMS",
    "VOICE",
    "EMAIL",
    "BAIDU",
    "CUSTOM",
    "IN_APP",
]
Status = Literal["ACTIVE", "INACTIVE"]
OptOut = Literal["ALL", "NONE"]


class _Shape(msgspec.Struct, omit_defaults=True, rename="pascal", kw_only=True):
    """A JSON object: Pascal-case names, absent where None."""


class User(_Shape):
    """EndpointUser. In the state one object is shared by all endpoints of a user: that is how attributes are shared."""

    user_attributes: dict[Name, Values] | None = None
    user_id: str | None = None


class Demographic(_Shape):
    """EndpointDemographic."""

    app_version: str | None = None
    locale: str | None = None
    make: str | None = None
    model: str | None = None
    model_version: str | None = None
    platform: str | None = None
    platform_version: str | None = None
    timezone: str | None = None


class Location(_Shape):
    """EndpointLocation."""

    city: str | None = None
    country: str | None = None
    latitude: float | None = None
    longitude: float | None = None
    postal_code: str | None = None
    region: str | None = None


class EndpointRequest(_Shape):
    """EndpointRequest, PublicEndpoint (PutEvents) and, with `id`, EndpointBatchItem."""

    id: str | None = None
    address: str | None = None
    attributes: dict[Name, Values] | None = None
    channel_type: Channel | None = None
    demographic: Demographic | None = None
    effective_date: str | None = None
    endpoint_status: Status | None = None
    location: Location | None = None
    metrics: dict[Name, float] | None = None
    opt_out: OptOut | None = None
    request_id: str | None = None
    user: User | None = None


class EndpointBatchRequest(_Shape):
    """EndpointBatchRequest."""

    item: list[EndpointRequest]


class Endpoint(_Shape):
    """EndpointResponse, and at the same time how the state keeps an endpoint."""

    id: str
    application_id: str
    cohort_id: str
    creation_date: str
    effective_date: str
    endpoint_status: Status = msgspec.field()
    opt_out: OptOut = msgspec.field()
    request_id: str
    address: str | None = None
    attributes: dict[str, list[str]] | None = None
    channel_type: Channel | None = None
    demographic: Demographic | None = None
    location: Location | None = None
    metrics: dict[str, float] | None = None
    user: User | None = None


class EndpointsResponse(_Shape):
    """EndpointsResponse."""

    item: list[Endpoint]


class CreateApplicationRequest(msgspec.Struct, kw_only=True):
    """CreateApplicationRequest; `tags` is in lower case at the wire."""

    name: Annotated[str, Meta(min_length=1, max_length=64)] = msgspec.field(name="Name")
    tags: dict[str, str] | None = None


class Application(msgspec.Struct, omit_defaults=True, kw_only=True):
    """ApplicationResponse."""

    id: str = msgspec.field(name="Id")
    arn: str = msgspec.field(name="Arn")
    name: str = msgspec.field(name="Name")
    creation_date: str = msgspec.field(name="CreationDate")
    tags: dict[str, str] | None = None


class ApplicationsResponse(_Shape):
    """ApplicationsResponse."""

    item: list[Application]
    next_token: str | None = None


class WriteEventStream(_Shape):
    """WriteEventStream."""

    destination_stream_arn: str
    role_arn: str


class EventStream(_Shape):
    """EventStream."""

    application_id: str
    destination_stream_arn: str
    role_arn: str
    last_modified_date: str


class Event(_Shape):
    """Event of PutEvents; only what is required is looked at."""

    event_type: str
    timestamp: str


class EventsBatch(_Shape):
    """EventsBatch."""

    endpoint: EndpointRequest
    events: dict[str, Event]


class EventsRequest(_Shape):
    """EventsRequest: batches by endpoint id."""

    batch_item: dict[str, EventsBatch]


class ItemAnswer(_Shape):
    """EndpointItemResponse and EventItemResponse."""

    message: str
    status_code: int


class ItemResponse(_Shape):
    """ItemResponse."""

    endpoint_item_response: ItemAnswer
    events_item_response: dict[str, ItemAnswer]


class EventsResponse(_Shape):
    """EventsResponse."""

    results: dict[str, ItemResponse]


class MessageBody(msgspec.Struct, kw_only=True):
    """MessageBody, and the body of every error."""

    message: str = msgspec.field(name="Message")
    request_id: str = msgspec.field(name="RequestID")
