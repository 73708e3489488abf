"""Walltimes, byte counts and numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.units import (
    format_count,
    format_lr,
    format_mebibytes,
    format_memory,
    format_seconds,
    format_walltime,
    parse_bytes,
    parse_walltime,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2:00:00", 7200),
        ("0:30:00", 1800),
        ("1:30", 5400),
        ("1-12:00:00", 129600),
        ("100:00:00", 360000),
        (" 0:00:01 ", 1),
    ],
)
def test_a_walltime_is_hours_minutes_seconds(text: str, seconds: int) -> None:
    assert parse_walltime(text) == seconds


@pytest.mark.parametrize("text", ["7200", "2h", "", "1:60:00", "1:2:3", "-1:00:00", "0:00:00", "٢:00:00", "1:00:00\n2"])
def test_a_walltime_that_slurm_would_read_otherwise_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^write "):
        parse_walltime(text)


@given(st.integers(min_value=1, max_value=10**8))
def test_a_walltime_that_was_formatted_is_parsed_back(seconds: int) -> None:
    assert parse_walltime(format_walltime(seconds)) == seconds


@pytest.mark.parametrize(
    ("text", "num_bytes"),
    [
        ("64G", 64 * 1024**3),
        ("6000M", 6000 * 1024**2),
        ("1.5 GiB", 3 * 1024**3 // 2),
        ("2TB", 2 * 1024**4),
        ("8k", 8192),
    ],
)
def test_memory_has_a_unit_and_counts_in_powers_of_1024(text: str, num_bytes: int) -> None:
    assert parse_bytes(text) == num_bytes


@pytest.mark.parametrize("text", ["64", "", "G", "-1G", "1e3M", "64 gigs", "0G"])
def test_memory_that_slurm_would_read_otherwise_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^write "):
        parse_bytes(text)


@given(st.integers(min_value=1, max_value=2**50))
def test_a_request_for_memory_never_shrinks_and_grows_by_less_than_a_mebibyte(num_bytes: int) -> None:
    assert 0 <= parse_bytes(format_mebibytes(num_bytes)) - num_bytes < 1024**2


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (6.8976e-4, "6.90e-4"),
        (0.1, "0.1"),
        (0.0123, "0.0123"),
        (1e-12, "1.00e-12"),
        (0.0, "0"),
        (1e-2, "0.01"),
        (3e4, "3.00e4"),
    ],
)
def test_a_learning_rate_has_three_significant_digits(value: float, text: str) -> None:
    assert format_lr(value) == text


def test_counts_have_thousands_separators() -> None:
    assert format_count(649528) == "649,528"


def test_a_size_is_told_in_gib_or_below_one_in_mib() -> None:
    assert [format_memory(size * 1024**2) for size in (0.25, 1023, 22968)] == ["256.0 KiB", "1023.0 MiB", "22.43 GiB"]


def test_seconds_have_tenths_where_they_matter() -> None:
    assert [format_seconds(value) for value in (0, 0.44, 9.94, 9.96, 433.4, 12345)] == [
        "0.0 s", "0.4 s", "9.9 s", "10 s", "433 s", "12,345 s",
    ]  # fmt: skip
