"""Floor 1: metrics, logs and the HTTP endpoints that show them."""

from __future__ import annotations

import sys

# structlog imports rich where it is installed, to draw tracebacks in a way that is not used here: 0.1 s and 5 MiB of
# every worker. It does without where the import fails.
if "structlog" not in sys.modules and "rich" not in sys.modules:
    sys.modules["rich"] = None  # type: ignore[assignment] # how Python notes a module that cannot be imported
    try:
        import structlog  # noqa: F401 # for its effect
    finally:
        del sys.modules["rich"]
