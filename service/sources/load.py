"""Source files: YAML to `SourceSpec`s, or every fault with its line.

    sources:
      - name: shop
        when: {type: order}                           # path: text; all must hold. A list of such: one must hold
        event_type: ["event.name", "=order.placed"]   # the first that is there; `=` marks a constant
        project: "=shop"
        user: user.id
        email: user.email
        time: [meta.ts, time]
        event_id: meta.id
        transactional: {path: meta.kind, is: receipt}

`when`, `if` and `transactional` compare with a text, a list of texts, or one of `{is: ...}`, `{not: ...}`,
`{prefix: ...}`, `{exists: true}`. A value is a path, a constant (`=...`), a list of these (the first that is there),
`{if: ..., then: ...}`, `{path: ..., map: {...}, prefixes: {...}, otherwise: ...}` or `{join: [...]}`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

import msgspec
import yaml

from service.scoring.event import MAX_ID_BYTES, MAX_PROJECT_BYTES, id_fault
from service.scoring.paths import Path, PathError, parse_path
from service.scoring.yaml_nodes import NodeReader, Problem, descend, shown, shown_key
from service.sources.checks import check_source
from service.sources.model import (
    ALWAYS,
    CONDITION_FIELDS,
    NEVER,
    VALUE_FIELDS,
    Case,
    Check,
    Conditions,
    Mode,
    Scalar,
    SourceSpec,
    Term,
    Value,
)

MAX_SOURCES = 100
"""Most sources in a file."""

MAX_CASES = 200
"""Most cases of a source."""

MAX_ALTERNATIVES = 20
"""Most entries of a list of alternatives."""

_NAME = re.compile(r"[a-z][a-z0-9-]{0,39}")
_CASE_KEYS = (*VALUE_FIELDS, *CONDITION_FIELDS, "skip", "teach")
_SOURCE_KEYS = ("name", "when", "within", "by", "cases", "recipients", "nobody", *_CASE_KEYS)
_MODES = {"is": Mode.IS, "not": Mode.NOT, "prefix": Mode.PREFIX, "exists": Mode.EXISTS}


class Loaded(msgspec.Struct, frozen=True):
    """What a file holds.

    Attributes:
        specs: The sources without fault, in order.
        problems: What is wrong with the others.
    """

    specs: tuple[SourceSpec, ...]
    problems: tuple[Problem, ...]


def load_sources(text: str | bytes, file: str, reserved: Collection[str] = ()) -> Loaded:
    """Read a source file. Never raises for any content.

    Args:
        text: The content.
        file: Its name, for the problems.
        reserved: Names that sources must not have: those of the built-in ones, where the file is a user's.
    """
    loader = _Loader(file, reserved)
    specs = loader.load(text)
    return Loaded(tuple(specs), tuple(loader.reader.problems))


class _Loader:
    def __init__(self, file: str, reserved: Collection[str]) -> None:
        self.reader = NodeReader(file)
        self._reserved = reserved

    def load(self, text: str | bytes) -> list[SourceSpec]:
        reader = self.reader
        root = reader.document(text)
        top = reader.mapping(root, "", ("sources",)) if root is not None else None
        if root is None or top is None:
            return []
        if "sources" not in top:
            reader.problem(root, "", "`sources` is missing; write `sources:` and a list under it")
            return []
        specs: list[SourceSpec] = []
        names: set[str] = set()
        for index, node in enumerate(reader.sequence(top["sources"], "sources", MAX_SOURCES) or ()):
            before = len(reader.problems)
            spec = self._source(node, f"sources[{index}]")
            if spec is None or len(reader.problems) > before:
                continue
            if spec.name in names:
                reader.problem(node, f"sources[{index}].name", f"another source is named {spec.name!r} already")
                continue
            names.add(spec.name)
            specs.append(spec)
        return specs

    def _source(self, node: yaml.Node, path: str) -> SourceSpec | None:
        entries = self.reader.mapping(node, path, _SOURCE_KEYS)
        if entries is None:
            return None
        before = len(self.reader.problems)
        name = self._name(node, entries, path)
        when: Conditions = NEVER
        if "when" in entries:
            when = self._conditions(entries["when"], f"{path}.when")
        else:
            self.reader.problem(
                node, path, "`when` is missing: which events are this source's? For example {type: order}"
            )
        skips, own = self._skips(entries.get("skip"), f"{path}.skip")
        base = self._case({key: value for key, value in entries.items() if key != "skip"}, path)
        spec = SourceSpec(
            name=name,
            when=when,
            base=msgspec.structs.replace(base, skip=own),
            within=self._path(entries["within"], f"{path}.within") if "within" in entries else None,
            skips=skips,
            by=self._by(entries["by"], f"{path}.by") if "by" in entries else (),
            cases=self._cases(entries["cases"], f"{path}.cases") if "cases" in entries else {},
            recipients=self._path(entries["recipients"], f"{path}.recipients") if "recipients" in entries else None,
            nobody_is_anonymous=self._nobody(entries["nobody"], f"{path}.nobody") if "nobody" in entries else False,
            text=_text_of(node),
        )
        if len(self.reader.problems) > before:
            return None
        for where, what in check_source(spec):
            self.reader.problem(descend(node, where), ".".join((path, *map(shown_key, where))), what)
        return spec

    def _name(self, node: yaml.Node, entries: Mapping[str, yaml.Node], path: str) -> str:
        if "name" not in entries:
            self.reader.problem(node, path, "`name` is missing; write for example `name: shop`")
            return ""
        name = self.reader.text(entries["name"], f"{path}.name", "a name") or ""
        if name and _NAME.fullmatch(name) is None:
            self.reader.problem(
                entries["name"],
                f"{path}.name",
                f"{shown(name)} cannot be a name: write a letter a to z, then up to 39 letters a to z, digits or -",
            )
        elif name in self._reserved:
            self.reader.problem(entries["name"], f"{path}.name", f"{name!r} is a built-in source; choose another name")
        return name

    def _nobody(self, node: yaml.Node, path: str) -> bool:
        said = self.reader.text(node, path, "`anonymous` or `reject`")
        if said is not None and said not in ("anonymous", "reject"):
            self.reader.problem(node, path, f"{shown(said)} is not known here; write `anonymous` or `reject`")
        return said == "anonymous"

    def _by(self, node: yaml.Node, path: str) -> tuple[Path, ...]:
        if not isinstance(node, yaml.SequenceNode):
            nodes = [node]
        else:
            nodes = self.reader.sequence(node, path, MAX_ALTERNATIVES) or []
        found = [self._path(item, path) for item in nodes]
        return tuple(item for item in found if item is not None)

    def _cases(self, node: yaml.Node, path: str) -> dict[str, Case]:
        entries = self.reader.mapping(node, path, None) or {}
        if len(entries) > MAX_CASES:
            self.reader.problem(node, path, f"a source has at most {MAX_CASES} cases, this one has {len(entries)}")
            return {}
        cases: dict[str, Case] = {}
        for key, inner in entries.items():
            where = f"{path}.{shown_key(key)}"
            fields = self.reader.mapping(inner, where, _CASE_KEYS)
            if fields is not None:
                cases[key] = self._case(fields, where)
        return cases

    def _case(self, entries: Mapping[str, yaml.Node], path: str) -> Case:
        reader = self.reader
        values = {
            name: value
            for name in VALUE_FIELDS
            if name in entries and (value := self._value(entries[name], f"{path}.{name}", name)) is not None
        }
        conditions = {name: self._flag(entries[name], f"{path}.{name}") for name in CONDITION_FIELDS if name in entries}
        skip = reader.text(entries["skip"], f"{path}.skip", "a reason") or "" if "skip" in entries else ""
        teach = reader.boolean(entries["teach"], f"{path}.teach") or False if "teach" in entries else False
        return Case(values, conditions, skip, teach)

    def _skips(self, node: yaml.Node | None, path: str) -> tuple[tuple[tuple[Conditions, str], ...], str]:
        """Return the skips with a condition, and the reason where all events of the source are skipped."""
        if node is None:
            return (), ""
        if isinstance(node, yaml.ScalarNode):
            return (), self.reader.text(node, path, "a reason") or ""
        skips: list[tuple[Conditions, str]] = []
        for index, item in enumerate(self.reader.sequence(node, path, MAX_ALTERNATIVES) or ()):
            where = f"{path}[{index}]"
            entries = self.reader.mapping(item, where, ("when", "reason"))
            if entries is None:
                continue
            if set(entries) != {"when", "reason"}:
                self.reader.problem(item, where, "`when` and `reason` are both needed")
                continue
            reason = self.reader.text(entries["reason"], f"{where}.reason", "a reason") or ""
            skips.append((self._conditions(entries["when"], f"{where}.when"), reason))
        return tuple(skips), ""

    def _value(self, node: yaml.Node, path: str, field: str) -> Value | None:
        if isinstance(node, yaml.MappingNode):
            entries = self.reader.mapping(node, path, ("path", "map", "prefixes", "otherwise", "join", "if", "then"))
            if entries is None:
                return None
            if "join" in entries:
                return self._joined(node, entries, path, field)
            if "path" in entries:
                return self._translated(node, entries, path, field)
        terms = self._terms(node, path, field)
        return Value(terms) if terms else None

    def _joined(self, node: yaml.Node, entries: Mapping[str, yaml.Node], path: str, field: str) -> Value | None:
        if len(entries) > 1:
            self.reader.problem(node, path, "`join` stands alone: other keys do not go with it")
            return None
        items = self.reader.sequence(entries["join"], f"{path}.join", MAX_ALTERNATIVES)
        if items is None:
            return None
        return Value(join=tuple(self._terms(item, f"{path}.join[{index}]", field) for index, item in enumerate(items)))

    def _translated(self, node: yaml.Node, entries: Mapping[str, yaml.Node], path: str, field: str) -> Value | None:
        if "if" in entries or "then" in entries:
            self.reader.problem(node, path, "`path` does not go with `if` and `then`; write two entries of a list")
            return None
        terms = self._terms(entries["path"], f"{path}.path", field)
        table = self._texts(entries.get("map"), f"{path}.map", field)
        prefixes = tuple(self._texts(entries.get("prefixes"), f"{path}.prefixes", field).items())
        otherwise = ""
        if "otherwise" in entries:
            otherwise = self.reader.text(entries["otherwise"], f"{path}.otherwise") or ""
            self._check_constant(entries["otherwise"], f"{path}.otherwise", otherwise, field)
        return Value(terms, table, prefixes, otherwise)

    def _texts(self, node: yaml.Node | None, path: str, field: str) -> dict[str, str]:
        if node is None:
            return {}
        entries = self.reader.mapping(node, path, None) or {}
        if len(entries) > MAX_CASES:
            self.reader.problem(node, path, f"at most {MAX_CASES} entries are read; these are {len(entries)}")
            return {}
        texts: dict[str, str] = {}
        for key, inner in entries.items():
            text = self.reader.text(inner, f"{path}.{shown_key(key)}")
            if text is not None:
                self._check_constant(inner, f"{path}.{shown_key(key)}", text, field)
                texts[key] = text
        return texts

    def _terms(self, node: yaml.Node, path: str, field: str) -> tuple[Term, ...]:
        nodes = [node]
        if isinstance(node, yaml.SequenceNode):
            nodes = self.reader.sequence(node, path, MAX_ALTERNATIVES) or []
        return tuple(term for item in nodes if (term := self._term(item, path, field)) is not None)

    def _term(self, node: yaml.Node, path: str, field: str) -> Term | None:
        conditions = ALWAYS
        if isinstance(node, yaml.MappingNode):
            entries = self.reader.mapping(node, path, ("if", "then"))
            if entries is None:
                return None
            if set(entries) != {"if", "then"}:
                self.reader.problem(node, path, "`if` and `then` are both needed")
                return None
            conditions = self._conditions(entries["if"], f"{path}.if")
            node, path = entries["then"], f"{path}.then"
        text = self.reader.text(node, path, "a path, or a constant that begins with =,")
        if text is None:
            return None
        if not text.startswith("="):
            found = self._parsed(node, path, text)
            return None if found is None else Term(found, "", conditions)
        self._check_constant(node, path, text[1:], field)
        return Term(None, text[1:], conditions)

    def _check_constant(self, node: yaml.Node, path: str, constant: str, field: str) -> None:
        if not constant.strip():
            self.reader.problem(node, path, "a constant must not be empty; write for example =order.placed")
        elif fault := id_fault("the constant", constant, MAX_PROJECT_BYTES if field == "project" else MAX_ID_BYTES):
            self.reader.problem(node, path, fault.detail)

    def _path(self, node: yaml.Node, path: str) -> Path | None:
        text = self.reader.text(node, path, "a path such as user.id")
        return None if text is None else self._parsed(node, path, text)

    def _parsed(self, node: yaml.Node, path: str, text: str) -> Path | None:
        try:
            return parse_path(text)
        except PathError as error:
            self.reader.problem(node, path, str(error))
            return None

    def _flag(self, node: yaml.Node, path: str) -> Conditions:
        """Read `true`, `false`, or `{path: ..., is: ...}`."""
        if isinstance(node, yaml.ScalarNode):
            return ALWAYS if self.reader.boolean(node, path) else NEVER
        entries = self.reader.mapping(node, path, ("path", *_MODES))
        if entries is None:
            return NEVER
        if "path" not in entries:
            self.reader.problem(node, path, "`path` is missing; write for example {path: meta.kind, is: receipt}")
            return NEVER
        found = self._path(entries["path"], f"{path}.path")
        modes = {key: value for key, value in entries.items() if key != "path"}
        check = self._mode(node, modes, path, found) if found is not None else None
        return NEVER if check is None else ((check,),)

    def _conditions(self, node: yaml.Node, path: str) -> Conditions:
        if isinstance(node, yaml.SequenceNode):
            items = self.reader.sequence(node, path, MAX_ALTERNATIVES) or []
            return tuple(self._checks(item, f"{path}[{index}]") for index, item in enumerate(items))
        return (self._checks(node, path),)

    def _checks(self, node: yaml.Node, path: str) -> tuple[Check, ...]:
        entries = self.reader.mapping(node, path, None)
        if entries is None:
            return ()
        if not 1 <= len(entries) <= MAX_ALTERNATIVES:
            self.reader.problem(
                node, path, f"1 to {MAX_ALTERNATIVES} entries `path: text` are expected here, not {len(entries)}"
            )
            return ()
        checks: list[Check] = []
        for key, inner in entries.items():
            found = self._parsed(inner, path, key)
            if found is None:
                continue
            where = f"{path}.{shown_key(key)}"
            if isinstance(inner, yaml.MappingNode):
                modes = self.reader.mapping(inner, where, tuple(_MODES))
                check = self._mode(inner, modes, where, found) if modes is not None else None
            else:
                check = Check(found, Mode.IS, self._scalars(inner, where))
            if check is not None:
                checks.append(check)
        return tuple(checks)

    def _mode(self, node: yaml.Node, modes: Mapping[str, yaml.Node], path: str, found: Path) -> Check | None:
        if len(modes) != 1:
            self.reader.problem(node, path, f"one of {', '.join(f'`{name}`' for name in _MODES)} is expected here")
            return None
        ((name, inner),) = modes.items()
        mode = _MODES[name]
        if mode is Mode.EXISTS:
            exists = self.reader.boolean(inner, f"{path}.exists")
            return None if exists is None else Check(found, Mode.EXISTS if exists else Mode.ABSENT)
        values = self._scalars(inner, f"{path}.{name}")
        if mode is Mode.PREFIX and not all(isinstance(value, str) and value for value in values):
            self.reader.problem(inner, f"{path}.prefix", "a text that is not empty is expected here")
        return Check(found, mode, values)

    def _scalars(self, node: yaml.Node, path: str) -> tuple[Scalar, ...]:
        nodes = [node]
        if isinstance(node, yaml.SequenceNode):
            nodes = self.reader.sequence(node, path, MAX_CASES) or []
        found = [self.reader.scalar(item, path) for item in nodes]
        return tuple(value for value in found if value is not None)


def _text_of(node: yaml.Node) -> str:
    """Return a file that holds this source alone, in plain form."""
    key = yaml.ScalarNode("tag:yaml.org,2002:str", "sources")
    entries = yaml.SequenceNode("tag:yaml.org,2002:seq", [node], flow_style=False)
    try:
        return str(yaml.serialize(yaml.MappingNode("tag:yaml.org,2002:map", [(key, entries)]), allow_unicode=True))
    except (yaml.YAMLError, RecursionError):
        return ""  # only for a node that is not a sound source: it has a problem
