"""Cluster profiles, read with every problem told at its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.cluster import LOCAL, Cluster
from orchestrator.errors import ClusterError
from orchestrator.profile import read_profile

PROFILES = Path(__file__).parent.parent / "cluster"
SITE = """\
name: site
scheduler: slurm
partitions:
  main: {nodes: {num_nodes: 2, cpus: 8, gpus: 4}, default: true}
"""


def refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> list[str]:
    monkeypatch.chdir(tmp_path)
    Path("site.yaml").write_text(text)
    with pytest.raises(ClusterError) as caught:
        read_profile("site.yaml")
    return str(caught.value).splitlines()


def test_the_local_profile_is_what_is_used_without_one() -> None:
    assert read_profile(PROFILES / "local.yaml") == LOCAL
    assert Cluster.model_validate(LOCAL.model_dump()) == LOCAL


def test_the_example_profile_is_complete() -> None:
    cluster = read_profile(PROFILES / "example_a100.yaml")
    assert cluster.default_partition == "gpu"
    assert {partition.nodes.gpus for partition in cluster.partitions.values()} == {8}


def test_slurm_conf_is_relative_to_the_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "site.yaml").write_text(SITE + "slurm_conf: etc/slurm.conf\n")
    monkeypatch.chdir(tmp_path)
    assert read_profile("profiles/site.yaml").slurm_conf == str(tmp_path / "profiles/etc/slurm.conf")
    (tmp_path / "profiles" / "site.yaml").write_text(SITE + "slurm_conf: /etc/slurm.conf\n")
    assert read_profile("profiles/site.yaml").slurm_conf == "/etc/slurm.conf"


def test_a_misspelt_key_and_an_unquoted_walltime_are_told_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = SITE.replace("gpus: 4", "gpu: 4").replace("default: true", "max_walltime: 24:00:00")
    assert refusal(tmp_path, monkeypatch, text) == [
        "site.yaml:4:41 partitions.main.nodes.gpu: unknown key 'gpu'",
        "    did you mean 'gpus'?",
        "site.yaml:4:50 partitions.main.max_walltime: text is wanted, found unquoted 24:00:00, "
        "which YAML reads as the number 86400",
        '    put the value in quotes: "24:00:00"',
    ]


def test_two_default_partitions_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = refusal(tmp_path, monkeypatch, SITE + "  more: {nodes: {num_nodes: 1, cpus: 8}, default: true}\n")
    assert told[0] == "site.yaml:5:42 partitions.more.default: 'main' is the default partition already"


def test_a_slurm_site_has_a_partition(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = refusal(tmp_path, monkeypatch, "name: site\nscheduler: slurm\n")
    assert told[0] == "site.yaml:1:1 partitions: missing: a Slurm site has at least one"


def test_a_missing_profile_is_one_problem_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="there is no such file"):
        read_profile(tmp_path / "none.yaml")
