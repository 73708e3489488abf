"""Files by URL, data files of packages, git repositories: whole, checked, and from where the recipe says."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import resource
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.errors import RunError
from orchestrator.recipe.read import read_recipe
from orchestrator.submit.assets.cache import cache_at
from orchestrator.submit.assets.environment import asset_environment
from orchestrator.submit.assets.stage import stage
from tests.support.asset_recipes import recipe_with, refusal, staged
from tests.support.command_line import orchestrate
from tests.support.hub_mirror import HubMirror

CORPUS = "".join(f"{number} bottles of beer on the wall\n" for number in range(20_000)).encode()
SHA256 = hashlib.sha256(CORPUS).hexdigest()


def partials() -> list[Path]:
    return list(cache_at(None, os.environ).root.rglob(".partial"))


def test_a_file_arrives_and_the_job_is_told_where_it_is(tmp_path: Path, mirror: HubMirror) -> None:
    mirror.files["corpus.txt"] = CORPUS
    recipe = recipe_with(tmp_path, f"my-corpus: {{url: {mirror.url}/files/corpus.txt?key=1, sha256: {SHA256}}}")
    seen: list[tuple[str, int, int | None]] = []
    cache = cache_at(None, os.environ)
    report = stage(read_recipe(recipe), recipe, cache, watch=lambda *arrived: seen.append(arrived))
    variables = asset_environment(read_recipe(recipe).recipe, cache, recipe.parent)
    assert Path(variables["ORCHESTRATE_ASSET_MY_CORPUS"]).read_bytes() == CORPUS
    assert variables.keys() == {"ORCHESTRATE_CACHE", "ORCHESTRATE_ASSET_MY_CORPUS"}
    assert report.assets[0].path.name == "corpus.txt" and seen[-1] == ("my-corpus", len(CORPUS), len(CORPUS))
    assert mirror.asked == [("GET", "/files/corpus.txt?key=1")]
    assert staged(recipe).assets[0].fetched is False and len(mirror.asked) == 1


def test_a_file_with_another_sha256_is_refused_and_thrown_away(tmp_path: Path, mirror: HubMirror) -> None:
    mirror.files["corpus.txt"] = CORPUS + b"!"
    recipe = recipe_with(tmp_path, f"corpus: {{url: '{mirror.url}/files/corpus.txt?key=1', sha256: {SHA256}}}")
    found = hashlib.sha256(CORPUS + b"!").hexdigest()
    place = f"tiny.yaml:28:{recipe.read_text().splitlines()[27].index('sha256') + 1} assets.corpus.sha256"
    assert refusal(recipe) == (
        f"{place}: what {mirror.url}/files/corpus.txt holds has the sha256 {found}; it was thrown away\n"
        "    write that sha256 if it is the file you mean, else mend the url"
    )
    assert partials() == [] and not (tmp_path / "tiny.lock.json").exists()


def test_a_file_that_broke_off_goes_on_where_it_stopped(tmp_path: Path, mirror: HubMirror) -> None:
    mirror.files["corpus.txt"] = CORPUS
    mirror.breaks_after["corpus.txt"] = 1000
    recipe = recipe_with(tmp_path, f"corpus: {{url: {mirror.url}/files/corpus.txt, sha256: {SHA256}}}")
    assert f"corpus.txt broke off after 1,000 of {len(CORPUS):,} bytes\n    run it again" in refusal(recipe)
    assert [path.stat().st_size for path in partials()] == [1000]
    seen: list[int] = []
    cache = cache_at(None, os.environ)
    stage(read_recipe(recipe), recipe, cache, watch=lambda name, done, total: seen.append(done))
    assert seen[-1] == len(CORPUS) and partials() == []


def test_a_file_that_has_changed_since_it_broke_off_is_fetched_anew(tmp_path: Path, mirror: HubMirror) -> None:
    mirror.files["corpus.txt"] = CORPUS[::-1]
    mirror.breaks_after["corpus.txt"] = 1000
    recipe = recipe_with(tmp_path, f"corpus: {{url: {mirror.url}/files/corpus.txt, sha256: {SHA256}}}")
    refusal(recipe)
    mirror.files["corpus.txt"] = CORPUS
    assert staged(recipe).assets[0].path.read_bytes() == CORPUS


def test_a_server_without_the_file_and_one_that_is_not_there_are_told(tmp_path: Path, mirror: HubMirror) -> None:
    assets = (
        f"absent: {{url: {mirror.url}/files/absent.txt, sha256: {SHA256}}}",
        f"down: {{url: 'http://127.0.0.1:9/x', sha256: {SHA256}}}",
        f"lost: {{url: 'file:///no/such/file', sha256: {SHA256}}}",
    )
    told = refusal(recipe_with(tmp_path, *assets)).splitlines()[::2]
    assert [line.partition(": ")[2] for line in told] == [
        f"{mirror.url}/files/absent.txt answers 404 Not Found",
        "http://127.0.0.1:9/x cannot be read: Connection refused",
        "file:///no/such/file cannot be read: No such file or directory",
    ]


def test_a_file_on_a_shared_disk_is_copied(tmp_path: Path) -> None:
    (tmp_path / "corpus.txt").write_bytes(CORPUS)
    recipe = recipe_with(tmp_path, f"corpus: {{url: 'file://{tmp_path}/corpus.txt', sha256: {SHA256}}}")
    assert staged(recipe).assets[0].path.read_bytes() == CORPUS


def test_a_cache_that_cannot_be_written_is_one_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "corpus.txt").write_bytes(CORPUS)
    (tmp_path / "no-folder").write_text("")
    monkeypatch.setenv("ORCHESTRATE_CACHE", str(tmp_path / "no-folder" / "cache"))
    with pytest.raises(RunError, match=r"no-folder.*: cannot be written: Not a directory"):
        staged(recipe_with(tmp_path, f"corpus: {{url: 'file://{tmp_path}/corpus.txt', sha256: {SHA256}}}"))


def test_a_packages_file_is_locked_with_the_packages_version(tmp_path: Path) -> None:
    recipe = recipe_with(tmp_path, "data: {package: scikit_learn, path: sklearn/datasets/data/iris.csv}")
    (one,) = staged(recipe).assets
    assert one.locked.version == importlib.metadata.version("scikit-learn")
    assert one.path.read_text().startswith("150,4,setosa") and not one.fetched
    variables = asset_environment(read_recipe(recipe).recipe, cache_at(None, os.environ), recipe.parent)
    assert variables["ORCHESTRATE_ASSET_DATA"] == str(one.path)


@pytest.mark.parametrize(
    ("asset", "told"),
    [
        ("{package: no-such-thing, path: a/b}", "package: no-such-thing is not installed|pip install no-such-thing"),
        (
            "{package: scikit-learn, path: datasets/iris.csv}",
            "path: scikit-learn {version} has no datasets/iris.csv|write sklearn/datasets/data/iris.csv",
        ),
        (
            "{package: scikit-learn, path: numpy/version.py}",
            "path: scikit-learn {version} has no numpy/version.py|see: pip show -f scikit-learn",
        ),
        (
            f"{{package: scikit-learn, path: sklearn/datasets/data/iris.csv, sha256: {'0' * 64}}}",
            "sha256: scikit-learn {version} holds a sklearn/datasets/data/iris.csv with the sha256 {sha256}"
            "|write that sha256 if it is the file you mean, else install another version",
        ),
    ],
)
def test_a_packages_file_that_is_not_there_is_told_with_the_one_that_is(tmp_path: Path, asset: str, told: str) -> None:
    found = importlib.metadata.distribution("scikit-learn")
    iris = Path(str(found.locate_file("sklearn/datasets/data/iris.csv"))).read_bytes()
    told = told.format(version=found.version, sha256=hashlib.sha256(iris).hexdigest())
    lines = refusal(recipe_with(tmp_path, f"data: {asset}")).splitlines()
    assert [lines[0].partition(" assets.data.")[2], lines[1].strip()] == told.split("|")


@pytest.fixture
def repository(tmp_path: Path) -> str:
    """A bare repository <tmp_path>/mirror/acme/tools.git with two commits on a branch; the first one's sha."""
    work, bare = tmp_path / "work", tmp_path / "mirror" / "acme" / "tools.git"
    work.mkdir()
    git("init", "--quiet", "--initial-branch=main", cwd=work)
    for text in ("first", "second"):
        (work / "folder").mkdir(exist_ok=True)
        (work / "folder" / "tool.py").write_text(f"TEXT = {text!r}\n")
        git("add", ".", cwd=work)
        git("-c", "user.name=a", "-c", "user.email=a@example.org", "commit", "--quiet", "-m", text, cwd=work)
    git("clone", "--quiet", "--bare", str(work), str(bare), cwd=tmp_path)
    return git("rev-parse", "HEAD~1", cwd=work).strip()


def git(*words: str, cwd: Path) -> str:
    env = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull}
    return subprocess.run(("git", *words), cwd=cwd, env=env, capture_output=True, text=True, check=True).stdout


def with_git_mirror(tmp_path: Path, commit: str, url: str = "https://code.example.org/acme/tools.git") -> Path:
    env = f"{{mirrors: {{git: {{'https://code.example.org/': 'file://{tmp_path}/mirror/'}}}}}}"
    return recipe_with(tmp_path, f"tools: {{git: '{url}', commit: {commit}}}", env=env)


def test_a_git_repository_arrives_through_its_mirror_at_its_commit(tmp_path: Path, repository: str) -> None:
    recipe = with_git_mirror(tmp_path, repository)
    (one,) = staged(recipe).assets
    assert (one.path / "folder" / "tool.py").read_text() == "TEXT = 'first'\n"
    assert sorted(path.name for path in one.path.iterdir()) == ["folder"]
    assert [file.path for file in one.locked.files] == ["folder/tool.py"]
    assert sorted(path.name for path in one.path.parent.iterdir()) == [repository]
    (tmp_path / "mirror").rename(tmp_path / "gone")
    assert staged(recipe).assets[0].fetched is False
    (one.path / "folder" / "tool.py").write_text("damaged")
    (tmp_path / "gone").rename(tmp_path / "mirror")
    assert staged(recipe).assets[0].fetched is True
    assert (one.path / "folder" / "tool.py").read_text() == "TEXT = 'first'\n"


def test_a_commit_that_git_does_not_have_and_a_repository_that_is_not_there(tmp_path: Path, repository: str) -> None:
    told = refusal(with_git_mirror(tmp_path, "e" * 40))
    assert f"assets.tools.commit: https://code.example.org/acme/tools.git has no commit {'e' * 40}" in told
    told = refusal(with_git_mirror(tmp_path, repository, url="https://code.example.org/acme/toys.git"))
    assert "assets.tools.git: https://code.example.org/acme/toys.git cannot be fetched: fatal: " in told
    assert told.endswith("check the URL and env.mirrors.git, then run it again")
    assert list((cache_at(None, os.environ).root / "git").iterdir()) == []


def test_a_secret_in_a_query_is_sent_and_neither_stored_nor_shown(tmp_path: Path, mirror: HubMirror) -> None:
    mirror.files["corpus.txt"] = CORPUS
    url = f"{mirror.url}/files/corpus.txt?token=hunter2"
    recipe = recipe_with(tmp_path, f"corpus: {{url: '{url}', sha256: {SHA256}}}")
    done = orchestrate("stage", recipe, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert mirror.asked == [("GET", "/files/corpus.txt?token=hunter2")]
    assert orchestrate("plan", recipe, cwd=tmp_path).returncode == 0
    stored = [path for path in tmp_path.rglob("*") if path.is_file() and b"hunter2" in path.read_bytes()]
    assert stored == [tmp_path / "tiny.yaml"] and "hunter2" not in done.stdout + done.stderr


def test_git_names_its_mirror_without_the_secret_in_its_address(tmp_path: Path) -> None:
    mirrors = "{git: {'https://code.example.org/': 'http://me:hunter2@127.0.0.1:9/?private_token=hunter3&x='}}"
    asset = f"tools: {{git: 'https://code.example.org/acme/tools.git', commit: {'e' * 40}}}"
    told = refusal(recipe_with(tmp_path, asset, env=f"{{mirrors: {mirrors}}}"))
    assert "cannot be fetched: fatal: unable to access 'http://127.0.0.1:9/'" in told and "hunter" not in told


@pytest.mark.parametrize("target", ["../../outside", "/etc/hostname", "nowhere", "itself"])
def test_a_link_that_leaves_the_repository_or_leads_nowhere_is_refused(
    tmp_path: Path, repository: str, target: str
) -> None:
    commit = committed(tmp_path, lambda work: (work / "itself").symlink_to(target))
    told = refusal(with_git_mirror(tmp_path, commit))
    assert f"assets.tools.git: its link itself -> {target} leads to nothing inside the repository" in told
    assert list((cache_at(None, os.environ).root / "git").iterdir()) == []


def test_a_link_inside_the_repository_stays_and_submodules_are_told(tmp_path: Path, repository: str) -> None:
    def change(work: Path) -> None:
        (work / "folder" / "link").symlink_to("tool.py")
        (work / ".gitmodules").write_text("")

    recipe = with_git_mirror(tmp_path, committed(tmp_path, change))
    done = orchestrate("stage", recipe, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "tools: its submodules are not fetched: declare each as an asset of its own\n" in done.stderr
    assert done.stderr.startswith("tools: 32 bytes here\n")


def committed(tmp_path: Path, change: Callable[[Path], object]) -> str:
    """Another commit in the mirrored repository; its sha."""
    change(tmp_path / "work")
    git("add", ".", cwd=tmp_path / "work")
    author = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    git(*author, "commit", "--quiet", "-m", "more", cwd=tmp_path / "work")
    git("push", "--quiet", str(tmp_path / "mirror" / "acme" / "tools.git"), "main", cwd=tmp_path / "work")
    return git("rev-parse", "HEAD", cwd=tmp_path / "work").strip()


def test_a_full_disk_is_told_as_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "corpus.txt").write_bytes(CORPUS)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal_before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(RunError, match=r"cannot be written: File too large"):
            staged(recipe_with(tmp_path, f"corpus: {{url: 'file://{tmp_path}/corpus.txt', sha256: {SHA256}}}"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, signal_before)
