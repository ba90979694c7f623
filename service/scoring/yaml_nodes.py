"""Reading YAML with positions: every fault is a sentence with the line, none an exception.

Nothing is constructed from tags: only texts, numbers, true, false, lists and mappings are read.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection

import msgspec
import yaml

MAX_FILE_BYTES = 256 * 1024
"""Largest file read; a row of a DynamoDB table holds 400 KB."""

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_STR, _BOOL, _INT, _FLOAT, _NULL = (f"tag:yaml.org,2002:{name}" for name in ("str", "bool", "int", "float", "null"))
_KINDS = {"sequence": "a list", "mapping": "a mapping"}
_SHOWN = 60
_LONGEST = 400


class Problem(msgspec.Struct, frozen=True):
    """What is wrong with a file.

    Attributes:
        file: Its name.
        line: Counted from 1; 0 where no line can be named.
        path: Where in the structure, such as `sources[0].when`; empty for the file as a whole.
        what: What is wrong and what is right.
    """

    file: str
    line: int
    path: str
    what: str

    def __str__(self) -> str:
        """Return one line for a terminal."""
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.path}: {self.what}" if self.path else f"{place}: {self.what}"


class NodeReader:
    """Reads nodes of one file and collects problems.

    Args:
        file: Its name, for the problems.
    """

    def __init__(self, file: str) -> None:
        self._file = file
        self.problems: list[Problem] = []

    def problem(self, node: yaml.Node | None, path: str, what: str) -> None:
        """Add a problem."""
        line = node.start_mark.line + 1 if node is not None and node.start_mark is not None else 0
        self.problems.append(Problem(self._file, line, path, _one_line(what)))

    def document(self, text: str | bytes) -> yaml.Node | None:
        """Return the root of the only document in a file; None, and a problem, where there is none."""
        if len(text) > MAX_FILE_BYTES:
            self.problem(None, "", f"the file has more than {MAX_FILE_BYTES // 1024} KiB; split it")
            return None
        try:
            if isinstance(text, bytes):
                text = text.decode("utf-8-sig")
            node: yaml.Node | None = yaml.compose(text, _LOADER)
        except UnicodeError as error:
            self.problem(None, "", f"the file is not UTF-8 text: {getattr(error, 'reason', error)}")
            return None
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            what = error.problem or error.context or "it cannot be read"
            line = mark.line + 1 if mark is not None else 0
            self.problems.append(Problem(self._file, line, "", _one_line(f"not valid YAML: {what}")))
            return None
        except yaml.YAMLError as error:
            reason = getattr(error, "reason", "") or "it cannot be read"
            self.problem(None, "", f"not valid YAML: {reason}")
            return None
        except RecursionError:
            self.problem(None, "", "not a file of this kind: lists and mappings nest too deep")
            return None
        if node is None:
            self.problem(None, "", "the file is empty")
        return node

    def mapping(self, node: yaml.Node, path: str, allowed: Collection[str] | None) -> dict[str, yaml.Node] | None:
        """Return the entries of a mapping; None, and a problem, where it is something else.

        Args:
            node: The node.
            path: Where it stands.
            allowed: Its keys; None for any text.
        """
        if not isinstance(node, yaml.MappingNode):
            self.problem(node, path, f"a mapping (key: value) is expected here, not {kind(node)}")
            return None
        entries: dict[str, yaml.Node] = {}
        for key_node, value in node.value:
            key = self._key(key_node, path)
            if key is None:
                continue
            if key in entries:
                self.problem(key_node, path, f"{shown(key)} stands here twice; keep one")
            elif allowed is not None and key not in allowed:
                self.problem(key_node, path, f"{shown(key)} is not known here{_near(key, allowed)}")
            else:
                entries[key] = value
        return entries

    def _key(self, node: yaml.Node, path: str) -> str | None:
        # YAML 1.1 reads the keys `on`, `off`, `yes` and `no` as true or false (https://yaml.org/type/bool.html); nobody
        # who writes them as keys means that.
        if isinstance(node, yaml.ScalarNode) and node.tag in (_STR, _BOOL):
            return str(node.value)
        written = f" {shown(node.value)}" if isinstance(node, yaml.ScalarNode) else ""
        self.problem(node, path, f"a key must be a text, not {kind(node)}{written}; put it in quotes")
        return None

    def sequence(self, node: yaml.Node, path: str, limit: int) -> list[yaml.Node] | None:
        """Return the items of a list of 1 to `limit`; None, and a problem, where it is something else."""
        if not isinstance(node, yaml.SequenceNode):
            self.problem(node, path, f"a list is expected here, not {kind(node)}")
            return None
        if not 1 <= len(node.value) <= limit:
            self.problem(node, path, f"a list of 1 to {limit} entries is expected here; this one has {len(node.value)}")
            return None
        return list(node.value)

    def text(self, node: yaml.Node, path: str, what: str = "a text") -> str | None:
        """Return a text that is not empty; None, and a problem, where it is something else."""
        if isinstance(node, yaml.ScalarNode):
            if node.tag == _STR:
                if node.value.strip():
                    return str(node.value)
                self.problem(node, path, f"{what} is expected here, and this is empty")
                return None
            self.problem(node, path, f"{what} is expected here, not {kind(node)}; put it in quotes if it is a text")
            return None
        self.problem(node, path, f"{what} is expected here, not {kind(node)}")
        return None

    def boolean(self, node: yaml.Node, path: str) -> bool | None:
        """Return true or false; None, and a problem, where it is something else."""
        if isinstance(node, yaml.ScalarNode) and node.tag == _BOOL and node.value.lower() in ("true", "false"):
            return bool(node.value.lower() == "true")
        self.problem(node, path, f"true or false is expected here, not {kind(node)}")
        return None

    def scalar(self, node: yaml.Node, path: str) -> str | int | float | bool | None:
        """Return a text, a number, true or false; None, and a problem, where it is something else."""
        if isinstance(node, yaml.ScalarNode):
            written = str(node.value)
            if node.tag == _STR:
                return written
            if node.tag == _BOOL:
                return self._boolean_value(node, path, written)
            if node.tag in (_INT, _FLOAT):
                return self._number(node, path, written)
        self.problem(node, path, f"a text, a number, true or false is expected here, not {kind(node)}")
        return None

    def _boolean_value(self, node: yaml.Node, path: str, written: str) -> bool | None:
        if written.lower() in ("true", "false"):
            return written.lower() == "true"
        self.problem(node, path, f"YAML reads {shown(written)} as true or false; put it in quotes if the text is meant")
        return None

    def _number(self, node: yaml.Node, path: str, written: str) -> int | float | None:
        try:
            return int(written) if node.tag == _INT else float(written)
        except ValueError:
            self.problem(
                node, path, f"YAML reads {shown(written)} as a number in a special form; put it in quotes, or write 12"
            )
            return None


def kind(node: yaml.Node) -> str:
    """Return what a node is, in words."""
    if isinstance(node, yaml.ScalarNode):
        names = {_STR: "a text", _BOOL: "true or false", _INT: "a number", _FLOAT: "a number", _NULL: "nothing"}
        return names.get(node.tag, f"a {str(node.tag).rpartition(':')[2]}")
    return _KINDS.get(node.id, "something else")


def shown(text: object) -> str:
    """Return foreign text for a message: quoted, escaped and of bounded length."""
    written = str(text)
    return repr(written if len(written) <= _SHOWN else f"{written[: _SHOWN - 3]}...")


def shown_key(key: str) -> str:
    """Return a key for a problem's path: as it is where that is plain, else quoted and escaped."""
    return key if key.isprintable() and len(key) <= _SHOWN else shown(key)


def descend(node: yaml.Node, keys: Collection[str]) -> yaml.Node:
    """Return the node that keys lead to, as far as they lead."""
    for key in keys:
        inner = [value for name, value in node.value if name.value == key] if node.id == "mapping" else []
        if not inner:
            break
        node = inner[0]
    return node


def _one_line(text: str) -> str:
    text = "".join(char if char.isprintable() else " " for char in text)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def _near(key: str, allowed: Collection[str]) -> str:
    close = difflib.get_close_matches(key[:_SHOWN], allowed, n=1)
    if close:
        return f"; did you mean `{close[0]}`?"
    return f"; known are {', '.join(f'`{name}`' for name in allowed)}"
