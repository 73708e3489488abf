"""Repositories of a hub: staged through a mirror, used without a network, and every way a hub can fail."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.recipe.read import read_recipe
from orchestrator.submit.assets.cache import AssetCache, cache_at
from orchestrator.submit.assets.fetch_hub import hub_environment
from orchestrator.submit.assets.lock import lock_path, lock_text, read_lock
from orchestrator.submit.assets.stage import stage
from tests.support.asset_recipes import WORDS, recipe_with, refusal, staged
from tests.support.command_line import orchestrate
from tests.support.hub_mirror import COMMIT, TOKEN, HubMirror, Repository
from tests.support.raw_server import raw_server

MODEL = f"words: {{model: acme/words, revision: {COMMIT}}}"
"""The same repository, taken for a model: nothing of it is tried."""
LOADS = """
import os
from transformers import AutoTokenizer
by_path = AutoTokenizer.from_pretrained(os.environ["ORCHESTRATE_ASSET_WORDS"])
by_name = AutoTokenizer.from_pretrained("acme/words", revision=os.environ["COMMIT"])
text = "The old farmer carried seven small boats."
print(len(by_path), by_path(text).input_ids == by_name(text).input_ids, by_path.unk_token_id in by_path(text).input_ids)
"""


def cache() -> AssetCache:
    return cache_at(None, os.environ)


def times(*folders: Path) -> dict[str, int]:
    paths = [path for folder in folders for path in (folder, *folder.rglob("*"))]
    return {str(path): path.stat().st_mtime_ns for path in paths}


def test_a_repository_that_the_mirror_does_not_have_is_named_with_the_mirror(tmp_path: Path, mirror: HubMirror) -> None:
    recipe = recipe_with(tmp_path, f"words: {{model: acme/other, revision: {COMMIT}}}", mirror=mirror)
    assert refusal(recipe) == (
        f"tiny.yaml:28:11 assets.words.model: {mirror.url} has no repository acme/other\n"
        "    check the name, and what the mirror in env.mirrors.huggingface holds"
    )
    assert not lock_path(recipe).exists()


def test_a_commit_that_the_repository_does_not_have_is_told_at_the_revision(tmp_path: Path, mirror: HubMirror) -> None:
    recipe = recipe_with(tmp_path, f"words: {{tokenizer: acme/words, revision: {'e' * 40}}}", mirror=mirror)
    assert refusal(recipe).startswith(f"tiny.yaml:28:34 assets.words.revision: {mirror.url} has no commit {'e' * 40}")


def test_a_closed_port_is_told_at_once_with_what_to_do(tmp_path: Path) -> None:
    recipe = recipe_with(tmp_path, WORDS, env="{mirrors: {huggingface: 'http://127.0.0.1:9'}}")
    assert refusal(recipe) == (
        "tiny.yaml:28:11 assets.words.tokenizer: http://127.0.0.1:9 does not answer: Connection refused\n"
        "    check env.mirrors.huggingface, or HF_ENDPOINT, then run it again"
    )


def test_a_hub_that_never_answers_is_given_up_after_five_seconds(tmp_path: Path, mirror: HubMirror) -> None:
    mirror.awake.clear()
    assert f"{mirror.url} does not answer within 5 s" in refusal(recipe_with(tmp_path, WORDS, mirror=mirror))


def test_a_server_that_is_no_hub_is_told_apart(tmp_path: Path, mirror: HubMirror) -> None:
    recipe = recipe_with(tmp_path, WORDS, env=f"{{mirrors: {{huggingface: '{mirror.url}/files/page.html?'}}}}")
    mirror.files["page.html"] = b"<html>welcome</html>"
    assert "does not speak the hub's API" in refusal(recipe)


def test_a_gated_repository_asks_for_a_token_and_takes_it_only_there(
    tmp_path: Path, mirror: HubMirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror.repositories["acme/words"].gated = True
    recipe = recipe_with(tmp_path, MODEL, f"other: {{model: acme/open, revision: {COMMIT}}}", mirror=mirror)
    mirror.repositories["acme/open"] = Repository({"config.json": b"{}"})
    assert refusal(recipe) == (
        "tiny.yaml:28:11 assets.words.model: acme/words is gated, and there is no token\n"
        "    ask for access on the repository's page, then: hf auth login, or export HF_TOKEN"
    )
    monkeypatch.setenv("HF_TOKEN", "hf_of_somebody_else")
    refused = refusal(recipe)
    assert "acme/words is gated, and your token may not read it" in refused and "hf_of" not in refused
    token = tmp_path / "token"
    token.write_text(TOKEN)
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setenv("HF_TOKEN_PATH", str(token))
    assert [one.name for one in staged(recipe).assets] == ["words", "other"]
    assert mirror.authorised and not any("acme/open" in path for path in mirror.authorised)


def test_a_private_repository_is_read_with_the_token_that_is_where_it_always_was(
    tmp_path: Path, mirror: HubMirror
) -> None:
    mirror.repositories["acme/words"].private = True
    recipe = recipe_with(tmp_path, MODEL, mirror=mirror)
    assert "acme/words is private, or is not there, and there is no token" in refusal(recipe)
    token = tmp_path / "home-cache" / "huggingface" / "token"
    token.parent.mkdir(parents=True)
    token.write_text(TOKEN)
    assert len(staged(recipe).assets) == 1


def test_a_file_that_is_not_what_the_hub_lists_is_refused_and_removed(tmp_path: Path, mirror: HubMirror) -> None:
    mirror.tampered["tokenizer.json"] = mirror.repositories["acme/words"].files["tokenizer.json"][::-1]
    recipe = recipe_with(tmp_path, MODEL, mirror=mirror)
    assert "hands out a tokenizer.json that is not what it lists; it was thrown away" in refusal(recipe)
    left = [path.name for path in cache().root.rglob("*") if path.name == "tokenizer.json"]
    assert left == [] and not lock_path(recipe).exists()
    mirror.tampered.clear()
    assert len(staged(recipe).assets[0].locked.files) == 3


def test_a_download_that_breaks_off_ends_whole(tmp_path: Path, mirror: HubMirror) -> None:
    mirror.breaks_after["tokenizer.json"] = 1000
    report = staged(recipe_with(tmp_path, MODEL, mirror=mirror))
    assert (report.assets[0].path / "tokenizer.json").read_bytes() == mirror.repositories["acme/words"].files[
        "tokenizer.json"
    ]


def test_patterns_choose_files_and_a_tokenizer_takes_no_weights(tmp_path: Path, mirror: HubMirror) -> None:
    files = mirror.repositories["acme/words"].files
    files |= {"model.safetensors": b"0" * 64, "onnx/config.json": b"{}", "README.md": b"words"}
    recipe = recipe_with(tmp_path, WORDS, MODEL.replace("words:", "all:"), mirror=mirror)
    lock = {one.name: [file.path for file in one.locked.files] for one in staged(recipe).assets}
    assert lock["words"] == ["config.json", "tokenizer.json", "tokenizer_config.json"]
    assert lock["all"] == sorted(files)
    some = recipe_with(tmp_path, MODEL.replace("}", ", files: ['*.md', 'onnx/*']}"), mirror=mirror)
    assert [file.path for file in staged(some).assets[0].locked.files] == ["README.md", "onnx/config.json"]
    none = recipe_with(tmp_path, MODEL.replace("}", ", files: ['*.bin']}"), mirror=mirror)
    assert "assets.words.files: none of the 6 files of acme/words is wanted" in refusal(none)


def test_other_content_under_a_locked_commit_is_refused(tmp_path: Path, mirror: HubMirror) -> None:
    recipe = recipe_with(tmp_path, MODEL, mirror=mirror)
    staged(recipe)
    text = lock_path(recipe).read_text()
    mirror.repositories["acme/words"].files["config.json"] = b'{"model_type": "gpt2"}'
    os.environ["ORCHESTRATE_CACHE"] = str(tmp_path / "another")
    try:
        assert "assets.words.model: config.json is not what was locked" in refusal(recipe)
    finally:
        del os.environ["ORCHESTRATE_CACHE"]
    assert lock_path(recipe).read_text() == text


def test_a_cache_for_a_group_is_filled_for_the_group(tmp_path: Path, mirror: HubMirror) -> None:
    root = tmp_path / "shared"
    root.mkdir()
    root.chmod(0o2770)
    recipe = recipe_with(tmp_path, MODEL, mirror=mirror)
    stage(read_recipe(recipe), recipe, AssetCache(root), watch=lambda name, done, total: None)
    paths = [path for path in root.rglob("*") if not path.is_symlink()]
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in paths}
    assert {name for name, mode in modes.items() if mode & 0o060 != 0o060} == set()
    assert {name for name, mode in modes.items() if mode & 0o007 and not name.endswith(".lock")} == set()
    assert len(modes) > 5


@pytest.fixture(scope="module")
def passed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is remembered of tokenizers that have passed: trying them takes seconds, and it is always the same one."""
    return tmp_path_factory.mktemp("checked")


@pytest.fixture
def stocked(tmp_path: Path, mirror: HubMirror, passed: Path) -> Path:
    """A recipe whose tokenizer has been staged."""
    recipe = recipe_with(tmp_path, WORDS, mirror=mirror)
    checked = cache().root / "checked"
    shutil.copytree(passed, checked)
    staged(recipe)
    shutil.copytree(checked, passed, dirs_exist_ok=True)
    return recipe


def test_a_real_tokenizer_arrives_and_the_job_loads_it_without_a_network(
    tmp_path: Path, mirror: HubMirror, stocked: Path
) -> None:
    done = orchestrate("submit", "--prepare", "--json", stocked, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    variables = json.loads((Path(json.loads(done.stdout)["run_dir"]) / "environment.json").read_text())
    assert {name: variables[name] for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")} == {
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
    }
    asked = len(mirror.asked)
    env = {**os.environ, **variables, "COMMIT": COMMIT, "PYTHONWARNINGS": "ignore"}
    loaded = subprocess.run((sys.executable, "-c", LOADS), env=env, capture_output=True, text=True, check=True)
    size = json.loads(mirror.repositories["acme/words"].files["config.json"])["vocab_size"]
    assert loaded.stdout.split() == [str(size), "True", "False"]
    assert len(mirror.asked) == asked


def test_a_second_run_asks_nobody_and_touches_nothing(tmp_path: Path, mirror: HubMirror, stocked: Path) -> None:
    asked, before = list(mirror.asked), times(cache().root)
    lock = (lock_path(stocked).stat().st_mtime_ns, lock_path(stocked).read_text())
    done = orchestrate("stage", stocked, "--json", cwd=tmp_path)
    assert done.returncode == 0 and json.loads(done.stdout)["assets"]["words"]["fetched"] is False
    assert orchestrate("submit", "--prepare", stocked, cwd=tmp_path).returncode == 0
    assert mirror.asked == asked
    assert times(cache().root) == before
    assert (lock_path(stocked).stat().st_mtime_ns, lock_path(stocked).read_text()) == lock


def test_a_lost_lock_is_written_again_from_the_cache(tmp_path: Path, mirror: HubMirror, stocked: Path) -> None:
    text, asked = lock_path(stocked).read_text(), len(mirror.asked)
    lock_path(stocked).unlink()
    staged(stocked)
    assert lock_path(stocked).read_text() == text and len(mirror.asked) == asked


def test_with_the_mirror_down_submit_says_so_in_seconds(tmp_path: Path) -> None:
    recipe = recipe_with(tmp_path, WORDS, env="{mirrors: {huggingface: 'http://127.0.0.1:9'}}")
    before = time.monotonic()
    done = orchestrate("submit", recipe, cwd=tmp_path)
    assert time.monotonic() - before < 10
    assert done.returncode == 2 and not (tmp_path / "runs").exists()
    assert done.stderr == (
        "tiny.yaml:28:3 assets.words: not staged, and http://127.0.0.1:9 does not answer: Connection refused\n"
        "    set env.mirrors.huggingface, or HF_ENDPOINT, to a hub that answers; "
        "then run: orchestrate stage tiny.yaml\n"
    )


def test_a_mirror_that_never_answers_costs_submit_seconds_too(tmp_path: Path, mirror: HubMirror) -> None:
    mirror.awake.clear()
    before = time.monotonic()
    done = orchestrate("submit", recipe_with(tmp_path, WORDS, mirror=mirror), cwd=tmp_path)
    assert time.monotonic() - before < 10
    assert f"not staged, and {mirror.url} does not answer within 5 s" in done.stderr


def test_a_cache_that_has_lost_all_but_config_json_is_refused(tmp_path: Path, stocked: Path) -> None:
    folder = staged(stocked).assets[0].path
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    for verb in (("plan",), ("submit", "--prepare")):
        done = orchestrate(*verb, stocked, cwd=tmp_path)
        assert done.returncode == 2
        assert f"assets.words: tokenizer.json is missing from {cache().root} (and 1 more)" in done.stderr
        assert done.stderr.endswith("run: orchestrate stage tiny.yaml\n")
    assert orchestrate("stage", stocked, cwd=tmp_path).returncode == 0
    assert orchestrate("plan", stocked, cwd=tmp_path).returncode == 0


def test_a_vocabulary_of_five_words_is_refused_with_its_reason_by_stage_and_by_submit(
    tmp_path: Path, mirror: HubMirror, stocked: Path
) -> None:
    reason = (
        "assets.words.tokenizer: loads without an error, with a vocabulary of 5 words where 100 are wanted: "
        "only config.json is there, and no vocabulary\n"
        "    stage tokenizer.json or vocab.txt too: see `files`, and what the repository holds\n"
    )
    lock = read_lock(lock_path(stocked))
    folder = staged(stocked).assets[0].path
    lone = recipe_with(tmp_path, WORDS.replace("}", ", files: [config.json]}"), mirror=mirror)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    by_stage = orchestrate("stage", lone, cwd=tmp_path)
    assert by_stage.returncode == 2 and reason in by_stage.stderr
    wanted = replace(lock["words"].wanted, select=("config.json",))
    lock_path(lone).write_text(
        lock_text({"words": replace(lock["words"], wanted=wanted, files=lock["words"].files[:1])})
    )
    by_submit = orchestrate("submit", lone, cwd=tmp_path)
    assert by_submit.returncode == 2 and reason in by_submit.stderr


def test_a_folder_that_would_be_taken_for_the_repository_is_refused(tmp_path: Path, mirror: HubMirror) -> None:
    recipe = recipe_with(tmp_path, MODEL, mirror=mirror)
    staged(recipe)
    shadow = tmp_path / "acme" / "words"
    shadow.mkdir(parents=True)
    done = orchestrate("plan", recipe, cwd=tmp_path)
    assert done.returncode == 2
    assert f"assets.words.model: the folder {shadow} would be loaded instead of the hub's repository" in done.stderr


def test_neither_stage_nor_plan_nor_submit_loads_the_hubs_libraries(tmp_path: Path, stocked: Path) -> None:
    program = """
import sys
from orchestrator.cli.__main__ import main
sys.argv = ["orchestrate", *sys.argv[1:]]
main()
print(*{name.partition(".")[0] for name in sys.modules}, file=sys.stderr)
"""
    for words in (("stage",), ("plan",), ("submit", "--prepare")):
        argv = (sys.executable, "-c", program, *words, str(stocked))
        done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=True)
        loaded = set(done.stderr.splitlines()[-1].split())
        assert loaded.isdisjoint({"huggingface_hub", "transformers", "tokenizers", "httpx2", "torch", "rich"})


def told_by_submit(recipe: Path, **env: str) -> str:
    """The first line of what `submit` says of a recipe whose asset is not staged."""
    done = orchestrate("submit", "--prepare", recipe, cwd=recipe.absolute().parent, env=env)
    assert done.returncode == 2, done.stderr
    return done.stderr.splitlines()[0].partition(" assets.words: not staged, and ")[2]


LONG = b"HTTP/1.1 200 OK\r\nX: " + b"a" * 200_000 + b"\r\n\r\n"


@pytest.mark.parametrize("answer", [b"SSH-2.0-OpenSSH_9.2\r\n", LONG], ids=["ssh", "long"])
def test_a_hub_that_does_not_speak_http_is_told_by_submit(tmp_path: Path, answer: bytes) -> None:
    with raw_server([answer]) as place:
        recipe = recipe_with(tmp_path, WORDS, env=f"{{mirrors: {{huggingface: 'http://{place}'}}}}")
        assert told_by_submit(recipe) == f"http://{place} does not answer: what it says is not HTTP"


def test_an_address_that_is_none_is_told_by_submit_and_by_stage(tmp_path: Path) -> None:
    recipe = recipe_with(tmp_path, WORDS, env="{mirrors: {huggingface: 'http://127.0.0.1:abc'}}")
    assert told_by_submit(recipe) == "http://127.0.0.1:abc is no address of a hub"
    assert refusal(recipe).endswith(
        "assets.words.tokenizer: http://127.0.0.1:abc is no address of a hub\n"
        "    write env.mirrors.huggingface, or HF_ENDPOINT, as https://host or https://host:port"
    )


def test_a_mirror_from_the_environment_is_the_one_that_submit_asks(tmp_path: Path, mirror: HubMirror) -> None:
    recipe = recipe_with(tmp_path, WORDS, env="{mirrors: {huggingface: '${oc.env:MIRROR}'}}")
    done = orchestrate("submit", recipe, cwd=tmp_path, env={"MIRROR": mirror.url, "HF_ENDPOINT": "http://127.0.0.1:9"})
    assert "assets.words: not staged\n    run: orchestrate stage tiny.yaml\n" in done.stderr
    assert mirror.asked == [("GET", "/api/models?limit=1")]


def test_a_name_and_password_in_a_mirrors_address_are_neither_looked_up_nor_shown(tmp_path: Path) -> None:
    recipe = recipe_with(tmp_path, WORDS, env="{mirrors: {huggingface: 'http://me:pw@127.0.0.1:9'}}")
    assert told_by_submit(recipe) == "http://127.0.0.1:9 does not answer: Connection refused"


def test_an_empty_variable_is_no_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "")
    assert hub_environment(os.environ, cache())["HF_ENDPOINT"] == "https://huggingface.co"


def test_a_mirror_that_wants_a_login_gets_the_token(
    tmp_path: Path, mirror: HubMirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror.wants_login = True
    recipe = recipe_with(tmp_path, MODEL, mirror=mirror)
    assert "and there is no token" in refusal(recipe)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert len(staged(recipe).assets[0].locked.files) == 3


@pytest.mark.parametrize("status", [403, 404, 500])
def test_a_file_that_is_refused_is_told_with_the_status(tmp_path: Path, mirror: HubMirror, status: int) -> None:
    mirror.statuses["config.json"] = status
    assert f"{mirror.url} answers {status} for acme/words/config.json" in refusal(
        recipe_with(tmp_path, MODEL, mirror=mirror)
    )
