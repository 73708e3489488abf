"""YAML as plain data with places; what YAML would do behind a person's back is refused, or stays visible."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.documents import MAX_BYTES, Document, dump_yaml, parse_document, read_document
from orchestrator.errors import ClusterError, Place, Problem, RecipeError


def parsed(text: str) -> Document:
    return parse_document(text, "some.yaml", RecipeError)


def refusal(text: str) -> str:
    """What is told of `text`: as an error where nothing of it can be read, else as the document's problems."""
    try:
        document = parsed(text)
    except RecipeError as error:
        return str(error)
    assert document.problems and document.unread
    return "\n".join(map(str, document.problems))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("1e5", 1e5),
        (".5", 0.5),
        ("1.", 1.0),
        ("-1.5E+3", -1500.0),
        ("-.inf", float("-inf")),
        ("1_000", 1000),
        ("0x1F", 31),
        ("2:00:00", 7200),
        ("0:30:00", "0:30:00"),
        ("no", False),
        ("On", True),
        ("0100", "0100"),
        ("2026-01-02", "2026-01-02"),
        ("'1e-3'", "1e-3"),
        ("e-3", "e-3"),
        ("~", None),
        ("", None),
        ("=", "="),
    ],
)
def test_a_plain_scalar_becomes_what_a_person_means(text: str, value: Any) -> None:
    found = parsed(f"key: {text}").data["key"]
    assert (found, type(found)) == (value, type(value))


def test_what_yaml_changed_is_remembered_as_it_was_written() -> None:
    document = parsed('a: 2:00:00\nb: [no, "no"]\nc: text\nd: 0100\ne: "0100"\nf: 0:30\n')
    assert document.written == {("a",): "2:00:00", ("b", 0): "no", ("d",): "0100", ("f",): "0:30"}
    assert document.in_base_sixty == (("a",),)


def test_places_are_those_of_keys_and_of_list_items_counted_from_one() -> None:
    document = parsed("a: 1\nb:\n  - {c: 1}\n  - d: 2\n")
    assert {path: str(place) for path, place in document.places.items()} == {
        ("a",): "some.yaml:1:1",
        ("b",): "some.yaml:2:1",
        ("b", 0): "some.yaml:3:5",
        ("b", 0, "c"): "some.yaml:3:6",
        ("b", 1): "some.yaml:4:5",
        ("b", 1, "d"): "some.yaml:4:5",
    }


def test_a_key_that_is_missing_is_placed_at_its_nearest_ancestor() -> None:
    document = parsed("a:\n  b: {c: 1}\n")
    assert document.where("a.b.c") == "some.yaml:2:7 a.b.c"
    assert document.where("a.b.x.y") == "some.yaml:2:3 a.b.x.y"
    assert document.where("z") == "some.yaml:1:1 z"
    assert document.where("") == "some.yaml:1:1"


def test_an_override_is_its_own_place() -> None:
    document = Document(
        "f",
        {},
        {("a", "b"): Place("--set a.b={c: 1}", key="a.b"), ("a", "b", "c"): Place("--set a.b={c: 1}", key="a.b")},
    )
    assert document.where("a.b") == "--set a.b={c: 1}"
    assert document.where("a.b.c") == "--set a.b={c: 1} a.b.c"


def test_problems_are_told_in_the_order_of_the_file() -> None:
    document = parsed("first: 1\nsecond: 2\n")
    placed = document.placed([Problem("second", "late"), Problem("first", "early")])
    assert [str(problem) for problem in placed] == ["some.yaml:1:1 first: early", "some.yaml:2:1 second: late"]


def test_all_problems_of_a_text_are_told_at_once() -> None:
    told = refusal("a: 1\na: 2\n1: x\n<<: {b: 1}\nc: !!python/name:os.system x\n? [d]\n: 1\n")
    assert told.splitlines()[::2] == [
        "some.yaml:2:1 a: this key stands here twice, first in line 1",
        "some.yaml:3:1: a key must be text, found 1",
        "some.yaml:4:1: merge keys (<<) are not read",
        "some.yaml:5:4 c: the tag !!python/name:os.system is not read",
        "some.yaml:6:3: a key must be text, found a list or mapping",
    ]


def test_an_anchor_is_read_and_its_uses_are_counted() -> None:
    assert parsed("a: &x [1, 2]\nb: *x\n").data == {"a": [1, 2], "b": [1, 2]}
    bomb = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n" for before, name in zip("abcde", "bcdef", strict=True)
    )
    assert "counting every use of an anchor" in refusal(bomb)
    assert "counting every use of an anchor" in refusal("a: &a [*a]")


@pytest.mark.parametrize("text", ["a: " + "[" * 500 + "]" * 500, "[" * 100_000, "- " * 100_000])
def test_nesting_without_end_is_refused(text: str) -> None:
    assert "some.yaml:" in refusal(text)


def test_a_number_that_is_none_is_refused() -> None:
    assert refusal("a: !!int many").startswith("some.yaml:1:4 a: 'many' is not a number")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: 'é'\nb: \x01", "some.yaml:2:4: not valid YAML"),
        ("a: [1\n", "some.yaml:1:4: not valid YAML: a bracket is opened here and never closed\n    close it"),
        (
            "a: {b: 1\nc: d\n",
            "some.yaml:1:4: not valid YAML: a bracket is opened here and never closed\n    close it",
        ),
        (
            'a: "b\nc: d\n',
            "some.yaml:1:4: not valid YAML: a quote is opened here and never closed",
        ),
        ("a: *.txt", "some.yaml:1:4: not valid YAML: * at the beginning of a value names an anchor\n    quote it"),
        ("a: %d", "some.yaml:1:4: not valid YAML: a value cannot begin with this character\n    quote it"),
        ("a: @x", "some.yaml:1:4: not valid YAML: a value cannot begin with this character\n    quote it"),
        (
            'a: "C:\\path"',
            "some.yaml:1:7: not valid YAML: found unknown escape character\n    write it",
        ),
        ("a: *nothing", "some.yaml:1:4: not valid YAML: found undefined alias"),
        ("a:\n\tb: 1", "some.yaml:2:1: not valid YAML"),
    ],
)
def test_broken_yaml_is_placed(text: str, told: str) -> None:
    assert refusal(text).startswith(told)


def read_refusal(path: Path | str) -> str:
    with pytest.raises(ClusterError) as caught:
        read_document(path, ClusterError)
    (problem,) = caught.value.problems
    return f"{problem.where}: {problem.what}"


def test_a_file_that_cannot_be_read_is_one_problem_with_its_path(tmp_path: Path) -> None:
    assert read_refusal(tmp_path / "none.yaml") == f"{tmp_path}/none.yaml: there is no such file"
    assert read_refusal(tmp_path) == f"{tmp_path}: this is a folder"
    assert read_refusal(tmp_path / "none.yaml" / "x").endswith("there is no such file")
    assert "cannot be read" in read_refusal("a\0b")
    (tmp_path / "latin.yaml").write_bytes("name: é".encode("latin-1"))
    assert read_refusal(tmp_path / "latin.yaml").endswith("not UTF-8 text (byte 6)")
    (tmp_path / "large.yaml").write_bytes(b"#" * (MAX_BYTES + 1))
    assert read_refusal(tmp_path / "large.yaml").endswith("larger than 1 MiB")
    (tmp_path / "large.yaml").write_text("é" * MAX_BYTES)  # the cap cuts a character in two
    assert read_refusal(tmp_path / "large.yaml").endswith("larger than 1 MiB")
    (tmp_path / "file").write_text("a: 1")
    assert "cannot be read" in read_refusal(tmp_path / "file" / "below")


def test_a_link_in_a_circle_is_one_problem(tmp_path: Path) -> None:
    loop = tmp_path / "loop.yaml"
    loop.symlink_to(loop)
    assert "cannot be read" in read_refusal(loop)


def test_a_file_is_named_as_given_and_may_begin_with_a_byte_order_mark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.yaml").write_bytes(b"\xef\xbb\xbfname: x\n")
    monkeypatch.chdir(tmp_path)
    document = read_document("a.yaml", RecipeError)
    assert document.data == {"name": "x"}
    assert document.where("name") == "a.yaml:1:1 name"


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs", "Cc"])),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(categories=["L", "N", "P"])), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["a", "no", "1e-3", "2:00", "<<", "~", "x y"]), plain))
def test_what_is_dumped_is_read_back_as_it_was(data: dict[str, Any]) -> None:
    assert parsed(dump_yaml(data)).data == data


@given(
    st.sampled_from(
        [
            "1e-3",
            "2:00:00",
            "no",
            "0100",
            "2026-01-02",
            "null",
            "",
            "<<",
            "1_0",
            "${a.b}",
            ".inf",
            "# x",
            "a: b",
            "é\n\nx ",
        ]
    )
)
def test_text_that_looks_like_something_else_stays_text(text: str) -> None:
    assert parsed(dump_yaml({"key": text})).data == {"key": text}


@given(st.text(st.sampled_from("ab1:- \n\t[]{}#&*!|>'\"%@`?,.~<=\0é"), max_size=40))
def test_whatever_the_text_is_it_is_read_or_refused_with_its_place(text: str) -> None:
    try:
        parsed(text)
    except RecipeError as error:
        assert all(problem.where.startswith("some.yaml") and problem.fix for problem in error.problems)
