import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.scoring.paths import parse_path
from service.scoring.yaml_nodes import MAX_FILE_BYTES
from service.sources.load import MAX_SOURCES, Loaded, load_sources
from service.sources.mapping import Source
from service.sources.model import ALWAYS, NEVER, Case, Check, Mode, SourceSpec, Term, Value
from service.sources.outcomes import RejectedEvent
from service.sources.plan import Context
from service.sources.registry import BUILTIN_NAMES, Registry, builtin_sources

EXAMPLE = """
sources:
  - name: shop
    when: {type: order}                      # path: text, all must hold
    event_type: ["event.name", "=order.placed"]
    project: "=shop"
    user: user.id
    email: user.email
    time: [meta.ts, time]
    event_id: meta.id
    message: meta.campaign_message
    campaign: meta.campaign
    transactional: {path: meta.kind, is: receipt}
"""


def is_at(path: str, *values: str) -> Check:
    return Check(parse_path(path), Mode.IS, values)


def at(*texts: str) -> Value:
    return Value(tuple(Term(None, text[1:]) if text.startswith("=") else Term(parse_path(text)) for text in texts))


def sound(text: str) -> list[SourceSpec]:
    loaded = load_sources(text, "sources.yml")
    assert loaded.problems == ()
    return list(loaded.specs)


def problems(text: str | bytes) -> list[str]:
    loaded = load_sources(text, "sources.yml", BUILTIN_NAMES)
    return [str(problem) for problem in loaded.problems]


def source(body: str) -> str:
    """A file with one source; `body` is its inside, indented by four."""
    return f"sources:\n  - name: shop\n{body}"


WHEN = "    when: {type: order}\n"
REST = "    event_type: =x\n    user: u\n"


def test_the_documented_example_is_read():
    (spec,) = sound(EXAMPLE)
    assert spec.name == "shop"
    assert spec.when == ((is_at("type", "order"),),)
    assert spec.base == Case(
        {
            "event_type": at("event.name", "=order.placed"),
            "project": at("=shop"),
            "user": at("user.id"),
            "email": at("user.email"),
            "time": at("meta.ts", "time"),
            "event_id": at("meta.id"),
            "message": at("meta.campaign_message"),
            "campaign": at("meta.campaign"),
        },
        {"transactional": ((is_at("meta.kind", "receipt"),),)},
    )


def test_every_form_is_read():
    (spec,) = sound("""
sources:
- name: every-form-2
  when:
  - {a: {exists: true}, b: {exists: false}, c: [x, 1, true, 1.5], d: {prefix: [p, q]}}
  - {e: {not: z}, f: {is: y}}
  within: $.detail
  by: [kind, type]
  cases:
    A: {event_type: =a, transactional: true, machine: false}
    B*: {skip: not for us}
    "*":
      event_type: {path: [t, u], map: {x: X}, prefixes: {p_: P.}, otherwise: other}
      event_id: {join: [id, [time, =none], "people[*].id"]}
      email: people[*].email
      machine: {path: m, exists: true}
      teach: false
  skip: [{when: {g: h}, reason: for a test}]
  recipients: people
  nobody: anonymous
  phone: {if: {k: phone}, then: address}
""")
    assert spec.when == (
        (
            Check(parse_path("a"), Mode.EXISTS),
            Check(parse_path("b"), Mode.ABSENT),
            Check(parse_path("c"), Mode.IS, ("x", 1, True, 1.5)),
            Check(parse_path("d"), Mode.PREFIX, ("p", "q")),
        ),
        (Check(parse_path("e"), Mode.NOT, ("z",)), is_at("f", "y")),
    )
    assert spec.within == parse_path("$.detail")
    assert spec.by == (parse_path("kind"), parse_path("type"))
    assert spec.cases == {
        "A": Case({"event_type": at("=a")}, {"transactional": ALWAYS, "machine": NEVER}),
        "B*": Case(skip="not for us"),
        "*": Case(
            {
                "event_type": Value(at("t", "u").terms, {"x": "X"}, (("p_", "P."),), "other"),
                "event_id": Value(join=(at("id").terms, at("time", "=none").terms, at("people[*].id").terms)),
                "email": at("people[*].email"),
            },
            {"machine": ((Check(parse_path("m"), Mode.EXISTS),),)},
        ),
    }
    assert spec.skips == ((((is_at("g", "h"),),), "for a test"),)
    assert spec.recipients == parse_path("people")
    assert spec.nobody_is_anonymous
    assert spec.base.values == {"phone": Value((Term(parse_path("address"), "", ((is_at("k", "phone"),),)),))}


def test_a_source_is_kept_as_a_file_of_its_own():
    text = EXAMPLE + "  - {name: two, when: {a: b}, event_type: =é, user: u}\n"
    specs = sound(text)
    assert [spec.name for spec in specs] == ["shop", "two"]
    for spec in specs:
        assert sound(spec.text) == [spec]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "sources.yml: the file is empty"),
        ("# nothing\n", "sources.yml: the file is empty"),
        ("[]", "sources.yml:1: a mapping (key: value) is expected here, not a list"),
        ("{}", "sources.yml:1: `sources` is missing; write `sources:` and a list under it"),
        ("sources: 7", "sources.yml:1: sources: a list is expected here, not a number"),
        ("sources: []", "sources.yml:1: sources: a list of 1 to 100 entries is expected here; this one has 0"),
        ("source: []", "sources.yml:1: 'source' is not known here; did you mean `sources`?"),
        ("sources:\n - a: {\n", "sources.yml:3: not valid YAML: "),
        ("sources: [\x00]", "sources.yml: not valid YAML: "),
        (b"\xff\xfe", "sources.yml: the file is not UTF-8 text: "),
        ("sources: [!!python/object:os.system {}]", "sources.yml:1: sources[0]: "),
        ("sources:\n- x", "sources.yml:2: sources[0]: a mapping (key: value) is expected here, not a text"),
        ("sources:\n- {name: a}\n---\nb", "sources.yml:3: not valid YAML: but found another document"),
        ("x" * (MAX_FILE_BYTES + 1), "sources.yml: the file has more than 256 KiB; split it"),
        (
            source(WHEN + "    event_typ: x\n" + REST),
            "sources.yml:4: sources[0]: 'event_typ' is not known here; did you mean `event_type`?",
        ),
        (source(WHEN + WHEN + REST), "sources.yml:4: sources[0]: 'when' stands here twice; keep one"),
        (source(REST), "sources.yml:2: sources[0]: `when` is missing: which events are this source's?"),
        (source(WHEN + "    user: u\n"), "sources.yml:2: sources[0]: `event_type` is missing; write a path, or a con"),
        (source(WHEN + "    event_type: =x\n"), "sources.yml:2: sources[0]: nobody is named; write at least one of"),
        ("sources:\n  - when: {a: b}\n" + REST, "sources.yml:2: sources[0]: `name` is missing; write for example"),
        (source(WHEN + REST).replace("shop", "My Shop"), "sources.yml:2: sources[0].name: 'My Shop' cannot be a name"),
        (source(WHEN + REST).replace("shop", "ses"), "sources.yml:2: sources[0].name: 'ses' is a built-in source"),
        (source(WHEN + REST).replace("shop", "12"), "sources.yml:2: sources[0].name: a name is expected here, not a n"),
        (
            source(WHEN + REST) + "  - {name: shop, when: {a: b}, event_type: =x, user: u}",
            "sources.yml:6: sources[1].name: another source is named 'shop' already",
        ),
        (source("    when: [order]\n" + REST), "sources.yml:3: sources[0].when[0]: a mapping (key: value) is expected"),
        (source("    when: {}\n" + REST), "sources.yml:3: sources[0].when: 1 to 20 entries `path: text` are expected"),
        (
            source("    when: {a: on}\n" + REST),
            "sources.yml:3: sources[0].when.a: YAML reads 'on' as true or false; put it in quotes if the text is meant",
        ),
        (source("    when: {a: 1:30}\n" + REST), "sources.yml:3: sources[0].when.a: YAML reads '1:30' as a number in"),
        (source("    when: {a: ~}\n" + REST), "sources.yml:3: sources[0].when.a: a text, a number, true or false is"),
        (source("    when: {a: 2026-11-20}\n" + REST), "sources.yml:3: sources[0].when.a: a text, a number, true or"),
        (source("    when: {a: {not: b}}\n" + REST), "sources.yml:3: sources[0].when: something must be there: one en"),
        (source("    when: {$: b}\n" + REST), "sources.yml:3: sources[0].when: something must be there: one entry has"),
        (source("    when: {a: {equals: b}}\n" + REST), "sources.yml:3: sources[0].when.a: 'equals' is not known here"),
        (source("    when: {a: {}}\n" + REST), "sources.yml:3: sources[0].when.a: one of `is`, `not`, `prefix`, `exis"),
        (source("    when: {a: {prefix: 7}}\n" + REST), "sources.yml:3: sources[0].when.a.prefix: a text that is not "),
        (source("    when: {a: {exists: maybe}}\n" + REST), "sources.yml:3: sources[0].when.a.exists: true or false i"),
        (source("    when: {a..b: c}\n" + REST), "sources.yml:3: sources[0].when: at character 3 of 'a..b': a key is"),
        (source(WHEN + REST + "    email: a b\n"), "sources.yml:6: sources[0].email: at character 2 of 'a b': a dot o"),
        (source(WHEN + REST + "    email: 7\n"), "sources.yml:6: sources[0].email: a path, or a constant that begins"),
        (source(WHEN + REST + "    email: ''\n"), "sources.yml:6: sources[0].email: a path, or a constant that begins"),
        (source(WHEN + REST + "    project: '= '\n"), "sources.yml:6: sources[0].project: a constant must not be empt"),
        (
            source(WHEN + REST + f"    project: ={'p' * 1025}\n"),
            "sources.yml:6: sources[0].project: the constant has 1025 bytes; at most 1024 fit a table key",
        ),
        (source(WHEN + REST + "    email: []\n"), "sources.yml:6: sources[0].email: a list of 1 to 20 entries is expe"),
        (source(WHEN + REST + "    email: [a[0]]\n"), "sources.yml:6: not valid YAML: "),
        (source(WHEN + REST + "    email: {path: a, if: {b: c}}\n"), "sources.yml:6: sources[0].email: `path` does no"),
        (source(WHEN + REST + "    email: {then: a}\n"), "sources.yml:6: sources[0].email: `if` and `then` are both n"),
        (source(WHEN + REST + "    email: {join: [a], map: {}}\n"), "sources.yml:6: sources[0].email: `join` stands a"),
        (source(WHEN + REST + "    email: {map: {a: b}}\n"), "sources.yml:6: sources[0].email: 'map' is not known her"),
        (source(WHEN + REST + "    transactional: yes\n"), "sources.yml:6: sources[0].transactional: true or false is"),
        (source(WHEN + REST + "    transactional: {is: a}\n"), "sources.yml:6: sources[0].transactional: `path` is mi"),
        (source(WHEN + REST + "    nobody: everybody\n"), "sources.yml:6: sources[0].nobody: 'everybody' is not known"),
        (source(WHEN + REST + "    skip: [{when: {a: b}}]\n"), "sources.yml:6: sources[0].skip[0]: `when` and `reason"),
        (source(WHEN + REST + "    cases: {a: {}}\n"), "sources.yml:6: sources[0].cases: `by` is missing: which path"),
        (source(WHEN + REST + "    by: type\n"), "sources.yml:6: sources[0].by: `cases` are missing"),
        (
            source(WHEN + REST + "    by: type\n    cases:\n      a*b: {}\n"),
            "sources.yml:8: sources[0].cases.a*b: 'a*b' cannot be a case: write a text, or its beginning and *, or * f",
        ),
        (
            source(WHEN + "    user: u\n    by: type\n    cases:\n      a: {event_type: =a}\n      b: {}\n"),
            "sources.yml:8: sources[0].cases.b: `event_type` is missing",
        ),
        (source(WHEN + REST + "    within: a[*]\n"), "sources.yml:6: sources[0].within: [*] cannot stand here; name t"),
        (source(WHEN + REST + "    project: a[*]\n"), "sources.yml:6: sources[0].project: [*] cannot stand here: proj"),
        (
            source(WHEN + REST + "    email: a[*].b\n    phone: b[*].c\n"),
            "sources.yml:7: sources[0].phone: two different arrays are gone through with [*], a[*].b and b[*].c; only",
        ),
        (source(WHEN + "    user: u\n    teach: true\n"), "sources.yml:2: sources[0]: `teach` needs `user`, and anoth"),
        (source(WHEN + "    <<: {a: b}\n" + REST), "sources.yml:4: sources[0]: a key must be a text, not a merge '<<'"),
    ],
    ids=lambda value: repr(value)[-50:],
)  # fmt: skip
def test_a_fault_names_file_line_and_place_and_says_what_is_right(text: str | bytes, expected: str):
    found = problems(text)
    assert any(problem.startswith(expected) for problem in found), found


def test_every_fault_of_a_file_is_reported_and_sound_sources_are_kept():
    loaded = load_sources(
        """
sources:
  - {name: good, when: {a: b}, event_type: =x, user: u}
  - {name: bad, when: {a..b: c}, event_type: "=", user: 7}
  - {name: Worse, when: {a: b}, event_type: =x, user: u}
""",
        "sources.yml",
    )
    assert [spec.name for spec in loaded.specs] == ["good"]
    assert [(problem.line, problem.path) for problem in loaded.problems] == [
        (4, "sources[1].when"),
        (4, "sources[1].event_type"),
        (4, "sources[1].user"),
        (5, "sources[2].name"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "&a [*a]",
        "sources: &a [*a]",
        "sources: &a\n  - *a",
        "sources:\n- &a\n  name: *a",
        "sources: " + "[" * 5000,
        "sources: " + "{a: " * 5000,
        "- " * 5000,
        "? " * 5000,
        "sources:\n- name: a\n  when: {a: b}\n  user: " + "[" * 500 + "a" + "]" * 500,
        # Nine levels of nine aliases each: 9**9 nodes if they were followed.
        "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10)),
        "sources:\n" + "- {name: a, when: {a: b}, event_type: =x, user: u}\n" * (MAX_SOURCES + 1),
        "sources: !!binary x",
        "sources: !!set {a}",
        "%YAML 9.9\n---\nsources: []",
        "sources:\n\t- a",
        "sources: *nobody",
    ],
    ids=lambda text: text[:30],
)
def test_hostile_yaml_is_a_problem_in_words(text: str):
    found = problems(text)
    assert found
    assert all(len(problem) < 400 for problem in found)


def test_the_built_in_files_are_sound_and_kept_as_they_are():
    for builtin in builtin_sources():
        loaded = load_sources(builtin.spec.text, "again")
        assert loaded == Loaded((builtin.spec,), ())


words = st.sampled_from(
    ["name", "when", "event_type", "user", "email", "time", "cases", "by", "skip", "path", "is", "if", "then", "join",
     "map", "a.b", "a[*]", "=x", "*", "shop", "exists", "prefix", "within", "recipients", "teach", "transactional"]
)  # fmt: skip
yaml_values = st.recursive(
    words | st.text(max_size=6) | st.booleans() | st.integers() | st.none() | st.floats(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words | st.text(max_size=4), inner, max_size=5),
    max_leaves=20,
)


def check_file(text: str | bytes) -> None:
    """Load; what is sound must compile and read any event, what is not must be said in words of one line."""
    loaded = load_sources(text, "f.yml")
    assert loaded.specs or loaded.problems
    for problem in loaded.problems:
        assert problem.what
        assert len(str(problem)) < 600
        assert "\n" not in str(problem)
        assert "Traceback" not in str(problem)
    for spec in loaded.specs:
        found = Source(spec)
        for event in ({}, {"a": {"b": "x"}, "type": "order"}, {"a": [{"b": 1}, None, "x"]}):
            assert found.read(event, b"{}", 0, Context("p"))
        assert load_sources(spec.text, "f.yml").specs == (spec,)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.dictionaries(words, yaml_values, max_size=8), max_size=3))
def test_any_structure_is_a_source_or_a_sentence(sources: list[dict[str, object]]):
    import yaml  # noqa: PLC0415 - only this test writes YAML

    check_file(yaml.safe_dump({"sources": sources}, allow_unicode=True))


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_a_damaged_example_is_a_source_or_a_sentence(data: st.DataObject):
    text = data.draw(st.sampled_from([EXAMPLE, *(builtin.spec.text for builtin in builtin_sources())]))
    for _ in range(data.draw(st.integers(1, 4))):
        at_char = data.draw(st.integers(0, len(text)))
        inserted = data.draw(
            st.text(max_size=3) | st.sampled_from(["\n", ": ", "- ", "[", "{", "*", "&a ", "'", "=", "[*]"])
        )
        text = text[:at_char] + inserted + text[at_char + data.draw(st.integers(0, 5)) :]
    check_file(text)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=200) | st.binary(max_size=200))
def test_any_file_is_a_source_or_a_sentence(text: str | bytes):
    check_file(text)


def test_an_own_source_comes_first_but_not_under_a_built_in_name():
    assert problems(source(WHEN + REST).replace("shop", "segment"))
    spec = sound("sources: [{name: mine, when: {eventType: Open}, event_type: =mine, user: mail.messageId}]")[0]
    outcomes = Registry([Source(spec)], default_project="p").read(b'{"eventType":"Open","mail":{"messageId":"m"}}')
    assert [(outcome.source, getattr(outcome, "user_id", "")) for outcome in outcomes] == [("mine", "m")]
    assert not isinstance(outcomes[0], RejectedEvent)
