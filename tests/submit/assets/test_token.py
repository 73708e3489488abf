"""Whether there is a token for what is handed out with one only: looked for where it is needed, and never shown."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from orchestrator.recipe.read import read_recipe
from orchestrator.submit.assets.fetch_hub import has_token
from orchestrator.submit.assets.lock import lock_path, read_lock
from tests.support.asset_recipes import recipe_with, staged
from tests.support.command_line import orchestrate
from tests.support.hub_mirror import COMMIT, TOKEN, HubMirror

MODEL = f"words: {{model: acme/words, revision: {COMMIT}}}"
NONE = (
    " assets.words: {what}, and it is handed out with a token: there is none\n"
    "    hf auth login, or export HF_TOKEN; then run: orchestrate stage tiny.yaml\n"
)


@pytest.fixture
def gated(tmp_path: Path, mirror: HubMirror) -> Path:
    """A recipe whose model the mirror hands out with a token only."""
    mirror.repositories["acme/words"].gated = True
    return recipe_with(tmp_path, MODEL, mirror=mirror)


def test_what_staging_has_shown_stands_in_the_lock_and_a_mirror_without_gates_does_not_change_it(
    tmp_path: Path, mirror: HubMirror, gated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    staged(gated)
    text = lock_path(gated).read_text()
    assert read_lock(lock_path(gated))["words"].token
    mirror.repositories["acme/words"].gated = False
    shutil.rmtree(tmp_path / "home-cache")
    staged(gated)
    assert lock_path(gated).read_text() == text


def test_plan_and_submit_say_that_there_is_no_token_where_one_is_wanted(
    tmp_path: Path, gated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    staged(gated)
    assert orchestrate("plan", gated, cwd=tmp_path, env={"HF_TOKEN": ""}).returncode == 0, "all of it is here"
    shutil.rmtree(tmp_path / "home-cache")
    for verb in ("plan", "submit"):
        without = orchestrate(verb, gated, cwd=tmp_path, env={"HF_TOKEN": ""})
        assert without.returncode == 2 and "is missing from" in without.stderr
        assert "and it is handed out with a token: there is none\n    hf auth login, or" in without.stderr
        assert "a token" not in orchestrate(verb, gated, cwd=tmp_path).stderr


def test_the_recipe_may_say_so_before_anything_is_staged(tmp_path: Path, mirror: HubMirror) -> None:
    recipe = recipe_with(tmp_path, MODEL.replace("}", ", token: true}"), mirror=mirror)
    told = NONE.format(what="not staged")
    assert told in orchestrate("plan", recipe, cwd=tmp_path).stderr
    token = tmp_path / "home-cache" / "huggingface" / "token"
    token.parent.mkdir(parents=True)
    token.write_text("\n")
    assert told in orchestrate("submit", recipe, cwd=tmp_path).stderr
    token.write_text(TOKEN)
    assert "assets.words: not staged\n" in orchestrate("submit", recipe, cwd=tmp_path).stderr


def test_a_tokens_text_is_nowhere(
    tmp_path: Path, mirror: HubMirror, gated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    verbs = (("plan",), ("submit", "--prepare"), ("stage", "--json"), ("plan", "--json"), ("submit", "--prepare"))
    for verb in verbs:
        done = orchestrate(*verb, gated, cwd=tmp_path)
        assert TOKEN not in done.stdout + done.stderr
    assert done.returncode == 0 and mirror.authorised
    assert [path for path in tmp_path.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()] == []
    assert TOKEN not in repr(read_recipe(gated))


@pytest.mark.parametrize(
    ("variables", "found"),
    [
        ({"HF_TOKEN": "x"}, True),
        ({"HUGGING_FACE_HUB_TOKEN": "x"}, True),
        ({"HF_TOKEN": " "}, False),
        ({"HF_TOKEN_PATH": "{folder}/token"}, True),
        ({"HF_HOME": "{folder}"}, True),
        ({"XDG_CACHE_HOME": "{folder}/.."}, True),
        ({"HF_HOME": "{folder}/none"}, False),
        ({"HF_TOKEN_PATH": "{folder}"}, False),
    ],
    ids=str,
)
def test_a_token_is_looked_for_where_the_hubs_client_looks(
    tmp_path: Path, variables: dict[str, str], found: bool
) -> None:
    folder = tmp_path / "huggingface"
    folder.mkdir()
    (folder / "token").write_text(f"{TOKEN}\n")
    environment = {name: value.format(folder=folder) for name, value in variables.items()}
    assert (
        has_token({"HF_HOME": str(tmp_path), **environment} if "XDG_CACHE_HOME" not in variables else environment)
        == found
    )
