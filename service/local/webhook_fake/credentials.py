"""What the fake knows its callers by: nothing here is a secret."""

from __future__ import annotations

import base64

SIGNING_SECRET = f"whsec_{base64.b64encode(b'not a secret: 24 bytes..').decode()}"
TOKEN = "not-a-token"  # noqa: S105 - of a fake
