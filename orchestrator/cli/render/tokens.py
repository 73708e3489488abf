"""Tokens by rule and by tokenizer as the text people read. Pure."""

from __future__ import annotations

import math

from orchestrator.submit.token_count import PerSample, TokenReport
from orchestrator.units import format_count, plural

_SCRIPTS = {"latin": "Latin", "cyrillic": "Cyrillic", "cjk": "Chinese, Japanese or Korean", "other": "other"}


def token_screen(report: TokenReport) -> str:
    """How much text there is, each rule beside the real count, which rule to trust, and what a recipe may declare."""
    counts, rows = report.counts, [("text", report.source)]
    amounts = (plural(counts.characters, "character"), plural(counts.words, "word"), plural(counts.bytes, "byte"))
    of = f" in {plural(report.num_files, 'file')}" if report.num_files > 1 else ""
    rows.append(("", f"{', '.join(amounts)}{of}"))
    shares = [(counts.share(script), words) for script, words in _SCRIPTS.items()]
    letters = ", ".join(f"{share:.0%} {words}" for share, words in sorted(shares, reverse=True) if share >= 0.005)
    rows.append(("letters", letters or "none"))
    width = max(len(format_count(number)) for number in (*report.estimates.values(), _tokens(report)))
    for rule, tokens in report.estimates.items():
        error = f"   {report.errors[rule]:+.1f} %" if report.errors else ""
        rows.append((rule, f"{format_count(tokens):>{width}} tokens{error}"))
    if report.measured is not None:
        of_whole = f"   +- {format_count(report.measured.half_width)} (95 %, from {_kib(report.measured.sample_bytes)})"
        sampled = of_whole if report.measured.half_width else "   counted"
        rows.append(("tokenizer", f"{format_count(_tokens(report)):>{width}} tokens{sampled}"))
        rows.append(("", report.measured.tokenizer))
        if report.measured.unknown_share:
            told = f"{report.measured.unknown_share:.1%} of the tokens are unknown to it: is it made for this language?"
            rows.append(("", f"warning: {told}"))
    rule_to_trust, why = report.trusted
    rows.append(("trust", f"{rule_to_trust}: {why}" if rule_to_trust else why))
    if report.per_sample is not None:
        rows += [("sample", line) for line in _per_sample(report.per_sample)]
    return "".join(f"{name:<11}{text}".rstrip() + "\n" for name, text in rows)


def _tokens(report: TokenReport) -> int:
    return report.measured.tokens if report.measured else 0


def _kib(num_bytes: int) -> str:
    return f"{format_count(round(num_bytes / 1024))} KiB of it"


def _per_sample(mean: PerSample) -> list[str]:
    read = f"read {format_count(mean.num_read)} of {plural(mean.num_samples, 'sample')}"
    key, value, half_width = "chars_per_sample", mean.characters, mean.characters_half_width
    if mean.tokens is not None and mean.tokens_half_width is not None:
        key, value, half_width = "tokens_per_sample", mean.tokens, mean.tokens_half_width
    exact = "" if half_width == 0 else f" +- {half_width:.1f} (95 %)" if math.isfinite(half_width) else " (too few)"
    return [f"{read}; a mean sample has {value:.1f} {key.partition('_')[0]}{exact}", f"{key}: {max(1, round(value))}"]
