"""What people write for numbers, words and sections, and what they are told to write instead."""

from __future__ import annotations

import pytest

from orchestrator.documents import parse_document
from orchestrator.errors import RecipeError
from orchestrator.recipe.schema import Recipe
from orchestrator.survey import survey

LINES = {
    "name": "name: good",
    "command": "command: [train.py]",
    "batch": "batch: {effective: 16}",
    "optimizer": "optimizer: {name: sgd, lr: 0.1}",
    "duration": "duration: {steps: 10}",
}


def told(line: str) -> list[str]:
    """`key: what`, then the fix, of every problem of a good recipe that has `line` instead of its own or as well."""
    text = "\n".join({**LINES, line.partition(":")[0]: line}.values())
    problems = survey(Recipe, parse_document(text, "r.yaml", RecipeError), ()).problems
    return [part for problem in problems for part in (f"{problem.key}: {problem.what}", problem.fix)]


def test_the_lines_are_good() -> None:
    assert told(LINES["name"]) == []


@pytest.mark.parametrize(
    ("line", "what", "fix"),
    [
        ("seed: 0100", "a whole number is wanted, found 0100, which YAML reads as text", "write 100, or 64 if"),
        ("seed: 0o17", "a whole number is wanted, found 0o17, which YAML reads as text", "write 15"),
        ("seed: 0189", "a whole number is wanted, found 0189, which YAML reads as text", "write 189"),
        ('seed: "16"', "a whole number is wanted, found the text '16'", "take the quotes away: 16"),
        ('seed: "2:00"', "a whole number is wanted, found the text '2:00'", "write a whole number: Seeds"),
        (
            "seed: 2:00",
            "a whole number is wanted, found unquoted 2:00, which YAML reads as the number 120",
            "write 120",
        ),
        ("seed: 1,024", "a whole number is wanted, found 1,024, which YAML reads as text", "write 1024"),
        ("seed: 1e3", "a whole number is wanted, found the number 1e3", "write 1000"),
        ("seed: 1.5", "a whole number is wanted, found the number 1.5", "write a whole number: Seeds"),
        ("seed: yes", "a whole number is wanted, found unquoted yes, which YAML reads as true", "write a whole number"),
        ("seed: [1]", "a whole number is wanted, found a list", "write a whole number: Seeds"),
        ("seed: {a: 1}", "a whole number is wanted, found a mapping", "write a whole number: Seeds"),
        ("seed:", "a whole number is wanted, found nothing", "write a whole number: Seeds"),
    ],
)
def test_a_whole_number(line: str, what: str, fix: str) -> None:
    first, second = told(line)
    assert first == f"seed: {what}"
    assert second.startswith(fix)


@pytest.mark.parametrize(
    ("lr", "what", "fix"),
    [
        ("1%", "a number is wanted, found 1%, which YAML reads as text", "write 0.01"),
        ("'1e-3'", "a number is wanted, found the text '1e-3'", "take the quotes away: 1e-3"),
        ("inf", "a number is wanted, found the text 'inf'", "write a number: Learning rate"),
        (".inf", "a finite number is wanted, found .inf", "write a number: Learning rate"),
        ("1:30", "a number is wanted, found unquoted 1:30, which YAML reads as the number 90", "write 90"),
        ("-1", "must be more than 0, found -1", "write a number in that range: Learning rate"),
        ("off", "a number is wanted, found unquoted off, which YAML reads as false", "write a number: Learning rate"),
    ],
)
def test_a_number(lr: str, what: str, fix: str) -> None:
    first, second = told(f"optimizer: {{name: sgd, lr: {lr}}}")
    assert first == f"optimizer.lr: {what}"
    assert second.startswith(fix)


@pytest.mark.parametrize(
    ("micro", "what", "fix"),
    [
        ("autp", "a whole number or auto is wanted, found the text 'autp'", "did you mean 'auto'?"),
        ("most", "a whole number or auto is wanted, found the text 'most'", "write a whole number or auto: Largest"),
        ("1.5", "a whole number or auto is wanted, found the number 1.5", "write a whole number or auto: Largest"),
        ("0", "must be at least 1, found 0", "write a whole number or auto in that range: Largest"),
        ("'8'", "a whole number or auto is wanted, found the text '8'", "take the quotes away: 8"),
        ("on", "a whole number or auto is wanted, found unquoted on, which YAML reads as true", "write a whole number"),
        ("[8]", "a whole number or auto is wanted, found a list", "write a whole number or auto: Largest"),
        ("1:30", "a whole number or auto is wanted, found unquoted 1:30, which YAML reads as", "write 90"),
    ],
)
def test_a_number_or_a_word_is_one_problem(micro: str, what: str, fix: str) -> None:
    first, second = told(f"batch: {{effective: 16, micro: {micro}}}")
    assert first.startswith(f"batch.micro: {what}")
    assert second.startswith(fix)


@pytest.mark.parametrize(
    ("line", "what", "fix"),
    [
        ("precision: bf61", "unknown value 'bf61'", "did you mean 'bf16'?"),
        ("precision: 16", "text is wanted, found the number 16", "choose one of: fp64, fp32, bf16, fp16"),
        ("precision: no", "text is wanted, found unquoted no, which YAML reads as false", "choose one of: fp64"),
        ("precision: [fp32]", "text is wanted, found a list", "choose one of: fp64, fp32, bf16, fp16"),
        ("name: no", "text is wanted, found unquoted no, which YAML reads as false", 'put the value in quotes: "no"'),
        ("name: 12:30", "text is wanted, found unquoted 12:30, which YAML reads as the number 750", "write letters"),
        ("name: [a]", "text is wanted, found a list", "write text: Names the run directory"),
        ("command: train.py", "a list is wanted, found the text 'train.py'", "write a list: [first, second]: Instead"),
        ("activation_checkpointing: 'yes'", "true or false is wanted, found the text 'yes'", "take the quotes away"),
        ("activation_checkpointing: 1", "true or false is wanted, found the number 1", "write true or false: Recomp"),
        ("resources: 2", "a section of keys is wanted, found the number 2", "write keys below it, of: num_nodes"),
    ],
)
def test_a_word_a_list_or_a_section(line: str, what: str, fix: str) -> None:
    first, second = told(line)
    assert first == f"{line.partition(':')[0]}: {what}"
    assert second.startswith(fix)


@pytest.mark.parametrize(
    ("betas", "what", "fix"),
    [
        ("[0.9]", ".1: value 2 of the list is missing", "write a number there"),
        ("[0.9, 0.99, 1]", ": 2 values are wanted, found 3", "write 2 values: Decay rates"),
        ("[0.9, 1]", ".1: must be less than 1, found 1", "write a number in that range"),
        ("[0.9, '0.99']", ".1: a number is wanted, found the text '0.99'", "take the quotes away: 0.99"),
        ("0.9", ": a list is wanted, found the number 0.9", "write a list: [first, second]: Decay rates"),
    ],
)
def test_a_pair_of_numbers(betas: str, what: str, fix: str) -> None:
    first, second = told(f"optimizer: {{name: adam, lr: 0.1, betas: {betas}}}")
    assert first == f"optimizer.betas{what}"
    assert second.startswith(fix)


def test_a_value_of_any_type_is_never_a_number_in_base_sixty() -> None:
    assert told("model: {target: m:f, args: {start: 12:30, word: '12:30', flag: no}}") == [
        "model.args.start: unquoted 12:30, which YAML reads as the number 750",
        'put the value in quotes: "12:30"; or write 750, if that is meant',
    ]


def test_a_misspelt_section_is_looked_into_as_the_one_that_was_meant() -> None:
    assert told("resorces: {num_nodes: 0, walltme: 2:00:00, memory: 5, gpu_typ: [x]}")[::2] == [
        "resorces: unknown key 'resorces'",
        "resorces.num_nodes: must be at least 1, found 0",
        "resorces.walltme: unknown key 'walltme'",
        "resorces.memory: text is wanted, found the number 5",
        "resorces.gpu_typ: unknown key 'gpu_typ'",
    ]


def test_what_stands_in_a_section_of_that_name_too_is_not_missing_in_the_misspelt_one() -> None:
    assert told("optimizr: {betas: 3}")[::2] == [
        "optimizr: unknown key 'optimizr'",
        "optimizr.betas: a list is wanted, found the number 3",
    ]
