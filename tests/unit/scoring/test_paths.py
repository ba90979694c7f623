import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.scoring.paths import MAX_STEPS, Path, PathError, lookup, parse_path

EVENT = {
    "user": {"id": "u-1", "tags": ["a", {"x": 1}], "none": None, "empty": ""},
    "mail": {"tags": {"ses:campaign": ["autumn"], "a.b": 1, 'say "hi"': 2, "it's": 3}},
    "recipients": [{"email": "a"}, {"email": None}, 7, {"email": "b"}],
    "0": "zero",
    "é": "accent",
}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("user.id", "u-1"),
        ("user", EVENT["user"]),
        ("user.tags[0]", "a"),
        ("user.tags[1].x", 1),
        ("user.tags[2]", None),
        ("user.tags[9999]", None),
        ("user.tags.x", None),  # a key is not looked for in an array
        ("user.id[0]", None),  # nor an index in a text
        ("user[0]", None),  # nor in an object
        ("user.none", None),
        ("user.none.x", None),
        ("user.empty", ""),
        ("nobody.at.all", None),
        ('mail.tags."ses:campaign"[0]', "autumn"),
        ("mail.tags.ses:campaign[0]", "autumn"),
        ("mail.tags.'a.b'", 1),
        (r'mail.tags."say \"hi\""', 2),
        (r"mail.tags.'it\'s'", 3),
        ('"user"."id"', "u-1"),
        ("0", "zero"),
        ("é", "accent"),
        ("$.user.id", "u-1"),
        ("$", EVENT),
        ("recipients[*].email", "a"),
        ("recipients[ * ]", {"email": "a"}),
        ("user.id[*]", "u-1"),  # one value where an array could be
        ("user.none[*]", None),
    ],
)
def test_a_path_finds_what_is_there(text: str, found: object):
    assert parse_path(text).find(EVENT) == found


def test_a_lookup_says_what_is_absent_as_the_caller_wants():
    absent = object()
    assert lookup(parse_path("user.id"), absent)(EVENT) == "u-1"
    assert lookup(parse_path("user.none"), absent)(EVENT) is absent


def test_a_path_with_a_star_is_cut_there():
    assert parse_path("$.a[0].b[*].c[1]") == Path("$.a[0].b[*].c[1]", ("a", 0, "b"), ("c", 1), from_top=True)
    assert parse_path("a[*]") == Path("a[*]", ("a",), ())


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "must not be empty"),
        ("   ", "must not be empty"),
        ("a..b", "at character 3 of 'a..b': a key is expected here"),
        (".a", "at character 1"),
        ("a.", "at character 3"),
        ("a b", "at character 2 of 'a b': a dot or [ is expected here"),
        ("a[-1]", "after [ comes an index from 0 or *, then ]"),
        ("a[x]", "after [ comes an index from 0 or *, then ]"),
        ("a[1", "after [ comes an index from 0 or *, then ]"),
        ("a[10000]", "the largest index is 9999"),
        ("a[*].b[*]", "[*] can stand only once in a path"),
        ('a."b', "at character 3"),
        ('a."b"c', "a dot or [ is expected here"),
        ("$a", "a dot or [ is expected here"),
        ("a.b*", "at character 4"),
        ("a=b", "at character 2"),
        ("x" * 501, "at most 500 characters"),
        (".".join("a" * (MAX_STEPS + 1)), "at most 32 steps"),
    ],
)
def test_what_is_not_a_path_says_where_and_what_is_expected(text: str, says: str):
    with pytest.raises(PathError) as error:
        parse_path(text)
    assert says in str(error.value)
    assert len(str(error.value)) < 300


@given(st.text(max_size=60) | st.from_regex(r"[$a-z.\[\]*\"'0-9\\]{0,30}"))
def test_any_text_is_a_path_or_an_error_in_words(text: str):
    try:
        path = parse_path(text)
    except PathError:
        return
    assert path.text == text
    if not text.startswith(("$", "[")):
        assert parse_path(f"$.{text}").steps == path.steps
    path.find(EVENT)


keys = st.text(min_size=1, max_size=8)
trees = st.recursive(
    st.integers() | st.text(min_size=1, max_size=3) | st.booleans(),
    lambda inner: st.lists(inner, min_size=1, max_size=3) | st.dictionaries(keys, inner, min_size=1, max_size=3),
    max_leaves=8,
)


@given(st.data(), trees)
def test_every_place_of_every_tree_has_a_path_that_finds_it(data: st.DataObject, tree: object):
    text, place = "$", tree
    while isinstance(place, dict | list) and data.draw(st.booleans()):
        if isinstance(place, dict):
            key = data.draw(st.sampled_from(sorted(place)))
            quoted = key.replace("\\", "\\\\").replace('"', '\\"').replace("'", "\\'")
            quote = data.draw(st.sampled_from("\"'"))
            text, place = f"{text}.{quote}{quoted}{quote}", place[key]
        else:
            index = data.draw(st.integers(0, len(place) - 1))
            text, place = f"{text}[{index}]", place[index]
    assert parse_path(text).find(json.loads(json.dumps(tree))) == place
