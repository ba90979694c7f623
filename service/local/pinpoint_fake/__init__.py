"""A fake of Amazon Pinpoint: a real HTTP server that any AWS SDK's `pinpoint` client talks to.

`PinpointFake` runs in this process, `PinpointProcess` in a child, `python -m service.local.pinpoint_fake` alone.
"""

from service.local.pinpoint_fake.faults import Fault
from service.local.pinpoint_fake.process import PinpointProcess
from service.local.pinpoint_fake.quotas import AWS_DEFAULT, UNLIMITED, parse_quotas
from service.local.pinpoint_fake.server import PinpointFake
from service.local.pinpoint_fake.standalone import run

__all__ = ["AWS_DEFAULT", "UNLIMITED", "Fault", "PinpointFake", "PinpointProcess", "parse_quotas", "run"]
