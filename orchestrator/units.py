"""Walltimes, byte counts and numbers: parsed from text once, printed one way. Pure."""

from __future__ import annotations

import re

_WALLTIME = re.compile(
    r"(?:(?P<days>\d{1,6})-)?(?P<hours>\d{1,6}):(?P<minutes>[0-5]\d)(?::(?P<seconds>[0-5]\d))?", re.ASCII
)
_BYTES = re.compile(r"(?P<number>\d{1,12}(?:\.\d{1,12})?)\s*(?P<unit>[KMGT])i?B?", re.IGNORECASE | re.ASCII)
GIB = 1024**3
_FACTORS = {"K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4}


def parse_walltime(text: str) -> int:
    """Seconds in 'H:MM:SS', 'H:MM' or 'D-H:MM:SS'. Refused: a bare number, which Slurm would read as minutes, and
    zero, which it would read as no limit.

    Raises ValueError with what to write instead.
    """
    match = _WALLTIME.fullmatch(text.strip())
    if match is None:
        raise ValueError('write hours:minutes:seconds in quotes, such as "2:00:00" or "1-12:00:00"')
    part = {name: int(value or 0) for name, value in match.groupdict().items()}
    seconds = ((part["days"] * 24 + part["hours"]) * 60 + part["minutes"]) * 60 + part["seconds"]
    if seconds == 0:
        raise ValueError("write a time longer than zero, or leave the key out")
    return seconds


def format_walltime(seconds: float) -> str:
    """'0:30:00', '36:00:00': hours, minutes and seconds, as sbatch --time reads them."""
    whole = int(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def parse_bytes(text: str) -> int:
    """Bytes in '6000M', '64G', '1.5 GiB' (all powers of 1024, as Slurm counts).

    Refused: a number without a unit, which Slurm would read as megabytes, and zero, which it would read as all there
    is. Raises ValueError with what to write instead.
    """
    match = _BYTES.fullmatch(text.strip())
    if match is None:
        raise ValueError('write a number and a unit, such as "64G" or "6000M"')
    num_bytes = int(float(match["number"]) * _FACTORS[match["unit"].upper()])
    if num_bytes == 0:
        raise ValueError("write an amount above zero, or leave the key out")
    return num_bytes


def format_mebibytes(num_bytes: int) -> str:
    """'6000M': what sbatch --mem reads, rounded up so that the request never shrinks."""
    return f"{-(-num_bytes // 1024**2)}M"


def format_memory(num_bytes: int) -> str:
    """'22.43 GiB', '563.5 MiB', '12.0 KiB': a size as people compare it with a GPU's."""
    if num_bytes >= 1024**3:
        return f"{num_bytes / 1024**3:.2f} GiB"
    return f"{num_bytes / 1024**2:.1f} MiB" if num_bytes >= 1024**2 else f"{num_bytes / 1024:.1f} KiB"


def format_count(count: int) -> str:
    """'1,331': a count as people read it."""
    return f"{count:,}"


def plural(count: int, noun: str) -> str:
    """'1 rank', '2 ranks'."""
    return f"{format_count(count)} {noun}" if count == 1 else f"{format_count(count)} {noun}s"


def format_lr(value: float) -> str:
    """'6.90e-4', '0.1': a learning rate in three significant digits."""
    if value == 0:
        return "0"
    if 1e-2 <= abs(value) < 1e3:
        return f"{value:.3g}"
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def format_seconds(seconds: float) -> str:
    """'0.4 s', '433 s', '12,345 s': a length of time as it is compared with others, tenths only where they matter."""
    return f"{seconds:.1f} s" if seconds < 9.95 else f"{format_count(round(seconds))} s"
