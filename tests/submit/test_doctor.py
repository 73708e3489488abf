"""The doctor: what each check says of a good and of a bad world, and that nothing which hangs holds it up."""

from __future__ import annotations

import contextlib
import http.server
import os
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cluster import LOCAL, Cluster
from orchestrator.profile import read_profile
from orchestrator.submit.doctor import folder, gpus, machine
from orchestrator.submit.doctor.examine import CHECKS, examine, patient_at
from orchestrator.submit.doctor.finding import Finding, Patient, clock_finding, without_secrets
from orchestrator.submit.doctor.folder import cache_finding, judged
from orchestrator.submit.doctor.installed import installed_file
from orchestrator.submit.doctor.probe import mount_of, place, skew_of
from orchestrator.submit.doctor.slurm import slurm_findings
from orchestrator.submit.tracker_health import database_path, tracker_findings
from tests.support.command_line import TINY
from tests.support.fake_slurm import FakeSlurm
from tests.support.mlflow_server import MlflowServer
from tests.support.ports import free_port

ROOT = Path(__file__).parent.parent.parent
DEV = read_profile(ROOT / "cluster" / "dev.yaml").model_copy(update={"slurm_conf": None, "slurm_cluster": "dev"})


def patient(folder: Path, *, cluster: Cluster = LOCAL, uri: str = "", **environment: str) -> Patient:
    return Patient(cluster, folder, uri or f"sqlite:///{folder / 'mlflow.db'}", environment)


def by_name(findings: Iterator[Finding] | tuple[Finding, ...]) -> dict[str, Finding]:
    return {finding.name: finding for finding in findings}


def test_what_hangs_is_unknown_and_what_fails_takes_nothing_with_it(tmp_path: Path) -> None:
    stuck = threading.Event()

    def fails(_: Patient) -> Iterator[Finding]:
        yield Finding("half", "ok", "seen")
        raise KeyError("x")

    checks: dict[str, Any] = {
        "stuck": lambda _: stuck.wait() and (),
        "fails": fails,
        "well": lambda _: [Finding("well", "ok", "seen")],
        "silent": lambda _: (),
    }
    found = examine(patient(tmp_path), checks, timeout_s=0.5)
    stuck.set()
    assert [(one.name, one.status, one.seen) for one in found] == [
        ("stuck", "unknown", "no answer within 0.5 s"),
        ("fails", "unknown", "the check itself failed: KeyError: 'x'"),
        ("well", "ok", "seen"),
    ]


def test_a_probe_that_fails_says_so_and_is_not_taken_for_one_that_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dies = "import os, sys; 'place' in sys.orig_argv and (os.write(2, b'no such luck'), os._exit(3))"
    (tmp_path / "sitecustomize.py").write_text(dies)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (found,) = examine(patient(tmp_path), {"run directory": CHECKS["run directory"]})
    assert (found.status, found.seen) == ("unknown", "no such luck")
    assert found.fix.startswith("please report")


def test_this_environment_has_the_python_packages_and_torchrun_that_are_wanted(tmp_path: Path) -> None:
    here = patient(tmp_path)
    found = [*machine.python_finding(here), *machine.package_findings(here), *machine.torchrun_finding(here)]
    assert {one.status for one in found} == {"ok"}, found
    assert "torch 2." in by_name(tuple(found))["packages"].seen


def test_a_package_that_is_missing_or_too_old_is_a_problem_with_its_install_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "orchestrator-9.dist-info"
    folder.mkdir()
    lines = ("Metadata-Version: 2.1", "Name: orchestrator", "Version: 9", "Requires-Python: >=4")
    wants = ("click>=99", "no-such-package>=1.2", "numpy>=1", "nor-this; extra == 'hub'")
    (folder / "METADATA").write_text("\n".join([*lines, *(f"Requires-Dist: {want}" for want in wants)]) + "\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = [*machine.python_finding(patient(tmp_path)), *machine.package_findings(patient(tmp_path))]
    problems = [(one.name, one.fix) for one in found if one.status == "problem"]
    assert problems == [
        ("python", "make a virtual environment with a newer one"),
        ("packages", "pip install 'click>=99'"),
        ("packages", "pip install 'no-such-package>=1.2'"),
    ]
    assert found[-1].name == "extras" and found[-1].seen.endswith(": nor-this")


def test_an_old_torchrun_is_told_by_the_options_that_it_does_not_know() -> None:
    file = installed_file("torch", "distributed/run.py")
    assert file is not None
    source = file.read_text()
    assert machine.missing_options(source) == ()
    assert machine.missing_options(source.replace('"--shutdown-timeout"', "")) == ("--shutdown-timeout",)
    assert "--signals-to-handle" in machine.missing_options("") and "--nnodes" in machine.missing_options("")


MOUNTS = r"""overlay / overlay rw 0 0
server:/home /home nfs4 rw,vers=4.2 0 0
tmpfs /home/me/scratch tmpfs rw 0 0
mds@tcp:/big /big\040data lustre rw 0 0
/dev/sda1 /mnt ext4 rw 0 0
beegfs_nodev /mnt beegfs rw 0 0
"""


@pytest.mark.parametrize(
    ("path", "mount"),
    [
        ("/home/me/runs", ("nfs4", "/home")),
        ("/home", ("nfs4", "/home")),
        ("/homes/me", ("overlay", "/")),
        ("/home/me/scratch/a", ("tmpfs", "/home/me/scratch")),
        ("/big data/runs", ("lustre", "/big data")),
        ("/mnt/runs", ("beegfs", "/mnt")),
    ],
)
def test_the_file_system_of_a_path_is_that_of_its_last_longest_mount(path: str, mount: tuple[str, str]) -> None:
    assert mount_of(path, MOUNTS) == mount


def test_a_folder_is_tried_without_leaving_anything_behind(tmp_path: Path) -> None:
    facts = place(str(tmp_path / "not" / "yet"))
    assert (facts["folder"], facts["error"]) == (str(tmp_path), None)
    assert abs(facts["skew_s"]) < 1 and facts["free_bytes"] > 0
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_which_nothing_can_be_made_is_a_problem() -> None:
    facts = place("/proc/self/task")
    found = by_name(judged(facts, uses_slurm=False))["run directory"]
    assert found.status == "problem" and "a file cannot be made: " in found.seen and found.fix


FACTS = {"folder": "/home/me", "type": "nfs4", "mount": "/home", "free_bytes": 2**40, "free_inodes": 10**6}


@pytest.mark.parametrize(
    ("facts", "uses_slurm", "name", "status"),
    [
        ({}, True, "file system", "ok"),
        ({"type": "ext4"}, True, "file system", "warning"),
        ({"type": "ext4"}, False, "file system", "ok"),
        ({"free_bytes": 10 * 2**30}, False, "free space", "warning"),
        ({"free_bytes": 10**6}, False, "free space", "problem"),
        ({"free_inodes": 5}, False, "free space", "problem"),
        ({"free_inodes": None}, False, "free space", "ok"),
        ({"skew_s": -75.0}, True, "clock of files", "warning"),
        ({"skew_s": 0.5}, True, "clock of files", "ok"),
    ],
    ids=str,
)
def test_a_folder_is_judged_by_what_was_found(facts: dict[str, Any], uses_slurm: bool, name: str, status: str) -> None:
    found = by_name(judged({**FACTS, "error": None, "skew_s": 0.0, **facts}, uses_slurm=uses_slurm))[name]
    assert found.status == status
    assert bool(found.fix) == (status != "ok")


def test_a_stamp_is_skewed_only_where_it_is_outside_of_the_two_looks_at_the_clock() -> None:
    assert [skew_of(stamp, 10.0, 20.0) for stamp in (4.0, 10.0, 15.0, 20.0, 23.0)] == [-6.0, 0, 0, 0, 3.0]
    assert clock_finding("c", 61.25, "it").seen == "it is 61.2 s ahead of this machine"
    assert clock_finding("c", -5, "it").seen == "it is 5.0 s behind this machine"


CONFIG = """Configuration data as of {now}
AccountingStorageEnforce = {enforce}
AccountingStorageType   = {storage}
ClusterName             = dev
SLURM_VERSION           = 22.05.8
"""


def answers(*, enforce: str = "associations,limits", storage: str = "slurmdbd", ahead_s: int = 0) -> dict[str, Any]:
    now = (datetime.now() + timedelta(seconds=ahead_s)).isoformat(timespec="seconds")
    config = CONFIG.format(now=now, enforce=enforce, storage=f"accounting_storage/{storage}")
    return {
        "scontrol ping": {"out": "Slurmctld(primary) at ctl is UP\n"},
        "scontrol show config": {"out": config},
        "scontrol show partition": {"out": "PartitionName=debug State=UP\nPartitionName=preempt State=UP\n"},
        "scontrol show node": {"out": "NodeName=a State=IDLE\nNodeName=b State=DOWN*\n"},
        "sacctmgr show assoc": {"out": "physics||normal\n"},
        "sacctmgr show qos": {"out": "normal\n"},
    }


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    fake = FakeSlurm.install(tmp_path / "slurm")
    monkeypatch.setenv("PATH", fake.environment["PATH"])
    monkeypatch.delenv("SLURM_CONF", raising=False)
    fake.answers(answers())
    return fake


def seen_of_slurm(tmp_path: Path, cluster: Cluster = DEV) -> dict[str, Finding]:
    return by_name(slurm_findings(patient(tmp_path, cluster=cluster)))


def test_a_slurm_that_answers_is_named_with_its_accounting_and_its_clock(slurm: FakeSlurm, tmp_path: Path) -> None:
    found = seen_of_slurm(tmp_path)
    assert found["slurm"].seen == "cluster 'dev', Slurm 22.05.8, 2 nodes, 1 of them out of service"
    assert found["accounting"].seen == "enforced (associations, limits); your accounts: physics"
    assert {one.status for one in found.values()} == {"ok"}


@pytest.mark.parametrize(
    ("said", "name", "status", "seen"),
    [
        (answers(storage="none", enforce="none"), "accounting", "ok", "none: how a job ended"),
        (answers(enforce="none"), "accounting", "ok", "slurmdbd, not enforced"),
        (
            answers() | {"sacctmgr show assoc": {"out": ""}},
            "accounting",
            "problem",
            "enforced, and you have no account",
        ),
        (answers() | {"sacctmgr show assoc": {"code": 1, "err": "down\n"}}, "accounting", "unknown", "sacctmgr: down"),
        (answers(ahead_s=-90), "clock of slurm", "warning", "Slurm's controller is "),
        (answers(ahead_s=90), "clock of slurm", "warning", "Slurm's controller is "),
        (answers() | {"scontrol ping": {"out": "Slurmctld(primary) at ctl is DOWN\n"}}, "slurm", "problem", "scontrol"),
        (answers() | {"scontrol show partition": {"out": "PartitionName=a\n"}}, "slurm", "warning", "cluster 'dev'"),
    ],
    ids=["no accounting", "not enforced", "no account", "no slurmdbd", "behind", "ahead", "down", "other partitions"],
)
def test_each_state_of_slurm_has_its_line(
    said: dict[str, Any], name: str, status: str, seen: str, slurm: FakeSlurm, tmp_path: Path
) -> None:
    slurm.answers(said)
    found = seen_of_slurm(tmp_path)[name]
    assert (found.status, found.seen[: len(seen)]) == (status, seen)
    assert bool(found.fix) == (status != "ok")


def test_the_profile_of_another_cluster_is_a_problem_and_no_slurm_is_one_only_for_a_slurm_site(
    slurm: FakeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = DEV.model_copy(update={"slurm_cluster": "big"})
    assert "the profile is for 'big'" in seen_of_slurm(tmp_path, other)["slurm"].seen
    monkeypatch.setenv("PATH", str(tmp_path))
    assert seen_of_slurm(tmp_path)["slurm"].status == "problem"
    assert seen_of_slurm(tmp_path, LOCAL)["slurm"].status == "ok"


@pytest.fixture(scope="module")
def strict_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    server = MlflowServer(tmp_path_factory.mktemp("mlflow"))
    server.start()
    yield server
    server.kill()


def by_other_name(server: MlflowServer) -> str:
    """A name of this machine that resolves as localhost does, and that the server compares letter by letter."""
    return f"http://LOCALHOST:{server.port}"


def test_a_real_server_takes_our_calls_and_its_clock_is_ours(strict_server: MlflowServer, tmp_path: Path) -> None:
    found = by_name(tracker_findings(patient(tmp_path, uri=strict_server.url)))
    assert (found["mlflow"].status, found["clock of mlflow"].status) == ("ok", "ok")
    assert found["mlflow"].seen.startswith(f"{strict_server.url}: MLflow 3.")


def test_a_server_that_refuses_its_host_name_is_told_with_the_option_that_mends_it(
    strict_server: MlflowServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = by_name(tracker_findings(patient(tmp_path, uri=by_other_name(strict_server))))["mlflow"]
    host = f"LOCALHOST:{strict_server.port}"
    assert refused.status == "problem" and "403 Invalid Host header" in refused.seen
    assert refused.fix == f"start the server with: mlflow server --allowed-hosts '{host},localhost:*,127.0.0.1:*'"
    strict_server.kill()
    monkeypatch.setenv("MLFLOW_SERVER_ALLOWED_HOSTS", f"{host},localhost:*,127.0.0.1:*")
    strict_server.start()
    for uri in (by_other_name(strict_server), strict_server.url):
        assert by_name(tracker_findings(patient(tmp_path, uri=uri)))["mlflow"].status == "ok"


class _Welcoming(http.server.BaseHTTPRequestHandler):
    """Says yes to everything, as the start page of a site does."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<html>welcome</html>")

    def log_message(self, format: str, *args: object) -> None:
        pass


class _Mlflow(_Welcoming):
    """Says what MLflow says, of another major version."""

    def do_GET(self) -> None:
        self.send_response(404 if self.path.startswith("/api") else 200)
        self.end_headers()
        self.wfile.write(b'{"error_code": "RESOURCE_DOES_NOT_EXIST"}' if self.path.startswith("/api") else b"2.22.0")


class _Guarded(http.server.BaseHTTPRequestHandler):
    """Answers /health; the API only to Basic me:secret, with a clock an hour late."""

    def do_GET(self) -> None:
        known = self.headers.get("Authorization") == "Basic bWU6c2VjcmV0"
        self.send_response_only(200 if known or self.path == "/health" else 401)
        self.send_header("Date", "Mon, 01 Jan 2024 00:00:00 GMT")
        self.end_headers()
        self.wfile.write(b"3.17.2" if self.path == "/version" else b'{"experiment": {}}')

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextlib.contextmanager
def serving(handler: type[http.server.BaseHTTPRequestHandler], context: ssl.SSLContext | None = None) -> Iterator[int]:
    """The port of a server on loopback that answers by `handler`."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


def test_credentials_are_used_and_never_shown(tmp_path: Path) -> None:
    with serving(_Guarded) as port:
        host = f"127.0.0.1:{port}"
        stranger = by_name(tracker_findings(patient(tmp_path, uri=f"http://{host}")))["mlflow"]
        assert (stranger.status, stranger.seen) == ("problem", f"http://{host}: 401, it wants to know who you are")
        names = {"MLFLOW_TRACKING_USERNAME": "me", "MLFLOW_TRACKING_PASSWORD": "secret"}
        for known in (
            patient(tmp_path, uri=f"http://{host}", **names),
            patient(tmp_path, uri=f"http://me:secret@{host}"),
        ):
            found = by_name(tracker_findings(known))
            assert (found["mlflow"].status, found["clock of mlflow"].status) == ("ok", "warning")
            assert "secret" not in str(found)


def test_what_is_not_mlflow_or_of_another_major_version_is_told(tmp_path: Path) -> None:
    with serving(_Welcoming) as port:
        other = by_name(tracker_findings(patient(tmp_path, uri=f"http://127.0.0.1:{port}")))["mlflow"]
        assert (other.status, other.seen) == ("problem", f"http://127.0.0.1:{port}: answers 200, not as MLflow does")
    with serving(_Mlflow) as port:
        old = by_name(tracker_findings(patient(tmp_path, uri=f"http://127.0.0.1:{port}")))["mlflow"]
        assert old.status == "warning" and ": MLflow 2.22.0, but 3." in old.seen


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate that 127.0.0.1 has signed for itself, with its key in one file."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a site of its own")])
    now = datetime.now(UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    made = made.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    made = made.add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
    made = made.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    secret = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    file = tmp_path_factory.mktemp("certificate") / "site.pem"
    pem = serialization.Encoding.PEM
    file.write_bytes(made.sign(key, hashes.SHA256()).public_bytes(pem) + key.private_bytes(pem, *secret))
    return file


def test_a_certificate_is_trusted_as_mlflows_own_client_would_trust_it(certificate: Path, tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with serving(_Mlflow, context) as port:
        uri = f"https://127.0.0.1:{port}"
        refused = by_name(tracker_findings(patient(tmp_path, uri=uri)))["mlflow"]
        assert refused.status == "problem"
        assert refused.seen.startswith(f"{uri}: its certificate is not trusted: self")
        assert refused.fix.startswith("export MLFLOW_TRACKING_SERVER_CERT_PATH=")
        for name, value in (
            ("MLFLOW_TRACKING_SERVER_CERT_PATH", str(certificate)),
            ("REQUESTS_CA_BUNDLE", str(certificate)),
            ("MLFLOW_TRACKING_INSECURE_TLS", "true"),
        ):
            trusting = patient(tmp_path, uri=uri, **{name: value})
            assert by_name(tracker_findings(trusting))["mlflow"].status == "warning", name


def test_nobody_there_and_no_mlflow_are_problems(tmp_path: Path) -> None:
    nobody = by_name(tracker_findings(patient(tmp_path, uri=f"http://127.0.0.1:{free_port()}")))["mlflow"]
    assert nobody.status == "problem" and nobody.seen.endswith("Connection refused")
    assert "orchestrate sync" in nobody.fix
    torn = by_name(tracker_findings(patient(tmp_path, uri="http://me:secret@host:port")))["mlflow"]
    assert (torn.status, "secret" in str(torn)) == ("problem", False)
    other = by_name(tracker_findings(patient(tmp_path, uri="postgresql://me:secret@host/db")))["mlflow"]
    assert (other.status, "secret" in str(other)) == ("unknown", False)


def test_a_store_that_is_a_file_is_looked_at_where_it_lies(tmp_path: Path) -> None:
    assert database_path("sqlite:///a/b.db?timeout=9", tmp_path) == tmp_path / "a" / "b.db"
    assert database_path("sqlite:////big/b.db", tmp_path) == Path("/big/b.db")
    assert database_path("databricks://x", tmp_path) is None
    assert by_name(tracker_findings(patient(tmp_path)))["mlflow"].status == "ok"
    assert by_name(tracker_findings(patient(tmp_path, cluster=DEV)))["mlflow"].status == "warning"
    assert (
        by_name(tracker_findings(patient(tmp_path, uri="sqlite:////proc/self/task/b.db")))["mlflow"].status == "problem"
    )


@pytest.mark.parametrize("uri", ["mlruns", "./mlruns", "file:///big/mlruns", "/big/mlruns"])
def test_a_folder_of_files_which_mlflow_refuses_is_a_problem(uri: str, tmp_path: Path) -> None:
    found = by_name(tracker_findings(patient(tmp_path, uri=uri)))["mlflow"]
    assert (found.status, found.fix) == ("problem", f"write tracking.uri: sqlite:///{tmp_path}/mlflow.db")
    allowed = patient(tmp_path, uri=uri, MLFLOW_ALLOW_FILE_STORE="true")
    assert by_name(tracker_findings(allowed))["mlflow"].status == "warning"


def test_a_database_that_is_none_is_a_problem_and_databricks_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "empty.db").touch()
    (tmp_path / "text.db").write_text("this is a text, and not a database")
    (tmp_path / "folder.db").mkdir()
    statuses = {
        name: by_name(tracker_findings(patient(tmp_path, uri=uri)))["mlflow"].status
        for name, uri in {
            **{name: f"sqlite:///{tmp_path}/{name}.db" for name in ("empty", "text", "folder")},
            "databricks": "databricks",
        }.items()
    }
    assert statuses == {"empty": "ok", "text": "problem", "folder": "problem", "databricks": "unknown"}


def test_a_file_in_the_place_of_the_runs_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "runs").touch()
    found = by_name(judged(place(str(tmp_path / "runs")), uses_slurm=False))["run directory"]
    assert (found.status, found.seen) == ("problem", f"{tmp_path}/runs is a file, where a folder of runs is wanted")


def test_proxies_that_catch_loopback_are_told_without_their_password(tmp_path: Path) -> None:
    proxy = "http://me:secret@proxy:3128"
    caught = by_name(machine.proxy_finding(patient(tmp_path, http_proxy=proxy, no_proxy=".site,localhost")))["proxies"]
    assert (caught.status, caught.seen) == ("warning", "http_proxy=http://proxy:3128; also for 127.0.0.1, ::1")
    assert caught.fix == "export no_proxy=.site,localhost,127.0.0.1,::1"
    mended = patient(tmp_path, HTTPS_PROXY=proxy, NO_PROXY=caught.fix.partition("=")[2])
    assert [one.status for one in machine.proxy_finding(mended)] == ["ok"]
    assert [one.status for one in machine.proxy_finding(patient(tmp_path, http_proxy=proxy, no_proxy="*"))] == ["ok"]
    assert machine.goes_around("a.site", ".site") and not machine.goes_around("website", "site")


def test_variables_of_a_surrounding_job_and_of_the_hub_are_told_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith(("SLURM_", "SBATCH_", "HF_", "TRANSFORMERS_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("SLURM_CONF", "/etc/slurm.conf")
    assert {one.status for one in machine.variable_findings(patient(tmp_path))} == {"ok"}
    monkeypatch.setenv("SLURM_JOB_ID", "41")
    monkeypatch.setenv("HF_ENDPOINT", "https://me:secret@mirror")
    found = by_name(machine.variable_findings(patient(tmp_path)))
    assert (found["slurm variables"].status, found["hub variables"].status) == ("warning", "warning")
    assert found["slurm variables"].seen.endswith("such as SLURM_JOB_ID")
    assert "secret" not in str(found)


def test_no_gpu_is_a_problem_only_where_the_profile_says_that_runs_here_have_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.machine.NVIDIA_GPUS", tmp_path / "no driver")
    needs = LOCAL.model_copy(update={"accelerator": "cuda"})
    for cluster, status in ((LOCAL, "ok"), (needs, "problem"), (at_a_slurm_site(needs), "ok")):
        assert [one.status for one in gpus.gpu_findings(patient(tmp_path, cluster=cluster))] == [status]


DRIVER = {"driver": "550.54", "cuda": "12.4", "gpus": ["A100", "A100", "T4"]}


@pytest.mark.parametrize(
    ("facts", "torch_cuda", "status", "seen"),
    [
        (DRIVER, "12.8", "ok", "2 A100, 1 T4 (driver 550.54, for CUDA up to 12.4); torch is built for CUDA 12.8"),
        (DRIVER, "11.8", "ok", "torch is built for CUDA 11.8"),
        (DRIVER, "13.0", "problem", "the installed torch is built for CUDA 13.0"),
        (DRIVER, None, "problem", "built without CUDA and cannot use them"),
        ({"error": "Driver/library version mismatch"}, "12.8", "problem", "Driver/library version mismatch"),
    ],
    ids=["fits", "older", "too new", "without CUDA", "driver"],
)
def test_gpus_that_are_there_need_a_driver_and_a_torch_that_fit(
    facts: dict[str, Any], torch_cuda: str | None, status: str, seen: str
) -> None:
    found = gpus.judged_gpus(facts, torch_cuda, needed=True)
    assert (found.status, found.seen[-len(seen) :]) == (status, seen)
    assert bool(found.fix) == (status != "ok")
    assert gpus.judged_gpus(facts, torch_cuda, needed=False).status == status.replace("problem", "warning")


def test_the_cuda_of_torch_is_read_from_its_own_file() -> None:
    source = installed_file("torch", "version.py")
    assert source is not None
    shown = "import torch.version; print(torch.version.cuda)"
    done = subprocess.run((sys.executable, "-c", shown), capture_output=True, text=True, timeout=120, check=True)
    assert str(gpus.cuda_of(source.read_text())) == done.stdout.strip()
    assert gpus.cuda_of("cuda = '12.8'\n") == gpus.cuda_of("cuda: Optional[str] = '12.8'\n") == "12.8"
    assert gpus.cuda_of("hip = '6.2'\n") is None


def at_a_slurm_site(cluster: Cluster) -> Cluster:
    return cluster.model_copy(update={"scheduler": "slurm"})


def test_the_patient_is_the_recipes_tracker_or_the_one_that_submit_would_use(tmp_path: Path) -> None:
    assert patient_at(tmp_path, recipe=TINY, profile=None).tracking_uri == f"sqlite:///{tmp_path / 'mlflow.db'}"
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(TINY.read_text() + "tracking: {uri: 'http://login:5000'}\nenv: {variables: {A: b}}\n")
    found = patient_at(tmp_path, recipe=recipe, profile=None)
    assert (found.tracking_uri, found.environment["A"]) == ("http://login:5000", "b")
    assert "environment" not in repr(found)


def test_every_check_has_a_name_of_its_own_and_uris_lose_their_secrets() -> None:
    assert len(set(CHECKS.values())) == len(CHECKS)
    for uri, shown in {
        "https://me:secret@host:1/path?token=secret#secret": "https://host:1/path",
        "http://me:sec/ret@host": "http://host",
        "http://me:secret?@host": "http://[redacted]",
        "me:secret@proxy:3128": "proxy:3128",
        "mlruns?x": "mlruns",
    }.items():
        assert without_secrets(uri) == shown


def test_a_cache_of_assets_that_looks_local_is_a_warning_for_jobs_on_other_machines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found(root: str) -> dict[str, Finding]:
        return by_name(cache_finding(patient(tmp_path, cluster=DEV, ORCHESTRATE_CACHE=root)))

    assert by_name(cache_finding(patient(tmp_path, ORCHESTRATE_CACHE="/dev/shm/assets"))) == {}
    local = found("/dev/shm/assets")["asset cache"]
    assert (local.status, local.seen) == ("warning", "/dev/shm/assets: on tmpfs, which looks local to this machine")
    monkeypatch.setattr(folder, "SHARED", frozenset({"tmpfs"}))
    assert found("/dev/shm/assets")["asset cache"].status == "ok"
