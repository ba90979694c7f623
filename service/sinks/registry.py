"""Every kind of sink. A new one is its folder and a line here."""

from __future__ import annotations

from collections.abc import Mapping

from service.sinks.customer_profiles import registration as customer_profiles
from service.sinks.eventbridge import registration as eventbridge
from service.sinks.log import registration as log
from service.sinks.pinpoint import registration as pinpoint
from service.sinks.port import LookupType, SinkType
from service.sinks.webhook import registration as webhook

SINKS: Mapping[str, SinkType] = {
    each.name: each for each in (pinpoint.SINK, customer_profiles.SINK, eventbridge.SINK, webhook.SINK, log.SINK)
}
"""By name, in the order of the documentation."""

LOOKUP: LookupType = pinpoint.LOOKUP
"""Who is asked which user an endpoint belongs to, where no event ever named one."""
