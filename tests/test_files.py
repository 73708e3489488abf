"""Files appear whole; records that are torn or damaged are told apart from good ones."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.files import (
    decode_record,
    encode_record,
    make_private_dir,
    read_json,
    read_records,
    write_atomically,
    write_json,
)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_written_file_is_whole_private_and_alone(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    write_atomically(path, "first")
    write_atomically(path, b"second")
    assert path.read_text() == "second"
    assert mode(path) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "taken"
    path.mkdir()
    with pytest.raises(OSError, match="taken"):
        write_atomically(path, "x")
    assert list(tmp_path.iterdir()) == [path]


def test_a_private_folder_is_for_its_owner_alone(tmp_path: Path) -> None:
    assert mode(make_private_dir(tmp_path / "runs")) == 0o700
    with pytest.raises(FileExistsError):
        make_private_dir(tmp_path / "runs", exist_ok=False)


def test_json_comes_back_and_a_missing_file_is_none(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"name": "é", "values": [1, None]})
    assert read_json(tmp_path / "a.json") == {"name": "é", "values": [1, None]}
    assert read_json(tmp_path / "b.json") is None


records = st.dictionaries(st.text(), st.integers() | st.text() | st.floats(allow_nan=False), max_size=4)


@given(records)
def test_a_record_is_one_line_and_comes_back(record: dict[str, object]) -> None:
    line = encode_record(record)
    assert line.count(b"\n") == 1
    assert decode_record(line[:-1]) == record


@given(records, st.data())
def test_a_record_with_one_bit_changed_is_refused(record: dict[str, object], data: st.DataObject) -> None:
    line = bytearray(encode_record(record)[:-1])
    position = data.draw(st.integers(min_value=9, max_value=len(line) - 1))
    line[position] ^= 1 << data.draw(st.integers(min_value=0, max_value=7))
    assert decode_record(bytes(line)) is None


def test_reading_skips_damage_waits_for_an_unfinished_line_and_goes_on_from_an_offset(tmp_path: Path) -> None:
    path = tmp_path / "journal.log"
    good, torn = encode_record({"n": 1}), encode_record({"n": 2})[:-4]
    path.write_bytes(good + torn + b"\n" + good + torn)
    found = list(read_records(path))
    assert [record for record, _ in found] == [{"n": 1}, None, {"n": 1}]
    assert found[-1][1] == len(good + torn + b"\n" + good)
    with path.open("ab") as file:
        file.write(b"\n" + encode_record({"n": 3}))
    assert [record for record, _ in read_records(path, found[-1][1])] == [None, {"n": 3}]
