"""The table of deploy/docs/configuration.md, generated from the code.

To update it: `python -m service.config.table --write deploy/docs/configuration.md`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from service.config.settings import FIELDS, VARIABLES
from service.runtime.fields import Secret, expected

DOCUMENT = "deploy/docs/configuration.md"
BEGIN = "<!-- configuration:begin -->"
END = "<!-- configuration:end -->"


def default(field_name: str) -> str:
    """Return a field's default as it would be written in the environment."""
    field = FIELDS[field_name]
    if field.about.default:
        return field.about.default
    if field.default in ("", (), Secret(""), None):
        return "required" if field_name == "stream" else "none"
    if isinstance(field.default, tuple):
        return f"`{','.join(field.default)}`"
    return f"`{field.default:g}`" if isinstance(field.default, float) else f"`{field.default}`"


def table() -> str:
    """Return the Markdown table of every variable."""
    rows = ["| Variable | Default | Takes | Meaning |", "|---|---|---|---|"]
    for variable, name in VARIABLES.items():
        field = FIELDS[name]
        rows.append(f"| `{variable}` | {default(name)} | {expected(field)} | {field.about.description} |")
    return "\n".join(rows) + "\n"


def updated(text: str) -> str:
    """Return a document with the current table between its markers.

    Raises:
        ValueError: The document does not contain each marker once, in order.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(f"the document needs one line {BEGIN} followed by one line {END}")
    return f"{text[: text.index(BEGIN)]}{BEGIN}\n{table()}{text[text.index(END) :]}"


def main() -> int:
    """Print the table, or write it into a document."""
    parser = argparse.ArgumentParser(description="Render the configuration table.")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the table between the markers of FILE")
    path = parser.parse_args().write
    if path is None:
        sys.stdout.write(table())
        return 0
    try:
        path.write_text(updated(path.read_text(encoding="utf-8")), encoding="utf-8")
    except ValueError as error:
        sys.stderr.write(f"{path}: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
