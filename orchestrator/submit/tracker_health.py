"""Whether MLflow can be reached, and what to do where it cannot: a server over HTTP, or a database or folder here.

MLflow 3 answers a Host header that it does not know with 403 (DNS rebinding), but its /health and /version to anyone:
only a call of its API shows it. Source: mlflow/server/security_utils.py and fastapi_security.py, 3.17.
"""

from __future__ import annotations

import base64
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from urllib.parse import unquote, urlsplit

from orchestrator.submit.doctor.ask import ask_probe
from orchestrator.submit.doctor.finding import Finding, Patient, Status, clock_finding, without_secrets
from orchestrator.submit.doctor.folder import is_shared
from orchestrator.submit.doctor.installed import installed_file
from orchestrator.submit.doctor.probe import skew_of

HTTP_TIMEOUT_S = 3.0
_API = "/api/2.0/mlflow/experiments/get-by-name?experiment_name=Default"
_INVALID_HOST = "Invalid Host header"
_ANSWERS = ((200, '"experiment"'), (404, "RESOURCE_DOES_NOT_EXIST"))
_CERTIFICATES = ("MLFLOW_TRACKING_SERVER_CERT_PATH", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_SQLITE = b"SQLite format 3\0"
"""What every database begins with; an empty file may become one. Source: sqlite.org/fileformat2.html."""
_FOLDERS_ALLOWED = "MLFLOW_ALLOW_FILE_STORE"
_NAMES = ("databricks", "databricks-uc")
"""What MLflow takes for a server, although it has no scheme. Source: mlflow/utils/uri.py, 3.17."""
_LATER = "runs train all the same, and `orchestrate sync` brings what is missing"


@dataclass(frozen=True)
class Answer:
    """What a server said: the status, the beginning of its text, and by how much its Date is ahead of this machine."""

    status: int
    text: str
    skew_s: float | None


def tracker_findings(patient: Patient) -> Iterator[Finding]:
    """The tracker of the recipe, or the default one."""
    uri = patient.tracking_uri
    if uri.startswith(("http://", "https://")):
        yield from _server(uri, patient.environment)
    elif (path := database_path(uri, patient.folder)) is not None:
        yield _local(path, uses_slurm=patient.uses_slurm)
    elif is_folder_store(uri):
        seen = f"{without_secrets(uri)}: MLflow no longer keeps runs in a folder of files"
        allowed = patient.environment.get(_FOLDERS_ALLOWED, "").lower() in ("true", "1")
        status: Status = "warning" if allowed else "problem"
        yield Finding("mlflow", status, seen, f"write tracking.uri: sqlite:///{patient.folder / 'mlflow.db'}")
    else:
        fix = "it is asked when a run is created; `orchestrate sync` shows what it says"
        yield Finding("mlflow", "unknown", f"{without_secrets(uri)}: only HTTP and sqlite are looked at", fix)


def database_path(uri: str, folder: Path) -> Path | None:
    """The file of `sqlite:///...`; None for any other URI."""
    scheme, _, rest = uri.partition(":")
    return folder / rest.removeprefix("///").partition("?")[0] if scheme == "sqlite" and rest[:3] == "///" else None


def is_folder_store(uri: str) -> bool:
    """Whether MLflow takes it for a folder: `file:...`, or a plain path that is no name of its own."""
    return uri.startswith("file:") or (":" not in uri and uri not in _NAMES)


def _local(path: Path, *, uses_slurm: bool) -> Finding:
    facts = ask_probe("place", str(path))
    if facts["folder"] == str(path.resolve()):
        return Finding(
            "mlflow", "problem", f"{path} is a folder", f"write tracking.uri: sqlite:///{path / 'mlflow.db'}"
        )
    if facts["begins"] and bytes.fromhex(facts["begins"]) != _SQLITE:
        fix = "move it away, or name another file as tracking.uri"
        return Finding("mlflow", "problem", f"{path}: this file is no SQLite database", fix)
    if facts["error"]:
        return Finding("mlflow", "problem", f"{path}: {facts['error']}", "set tracking.uri to a place you can write")
    if uses_slurm and not is_shared(facts["type"]):
        fix = "name a server (http://...), or a file that the nodes of a job see, as tracking.uri"
        return Finding("mlflow", "warning", f"{path} on {facts['type']}: jobs may not see it", fix)
    return Finding("mlflow", "ok", f"{path}: writable, on {facts['type']}")


def _server(uri: str, environment: Mapping[str, str]) -> Iterator[Finding]:
    shown = without_secrets(uri)
    try:
        health = ask(uri, "/health", environment)
        api = ask(uri, _API, environment) if health.status == 200 else health
        told = ask(uri, "/version", environment) if _is_mlflow(api) else api
    except TimeoutError:
        seen = f"{shown}: no answer within {HTTP_TIMEOUT_S:g} s"
        yield Finding("mlflow", "unknown", seen, f"is it up, and may this machine reach it? {_LATER}")
        return
    except (OSError, ValueError, HTTPException) as error:
        yield _unreached(shown, getattr(error, "reason", error))
        return
    yield _judged(shown, api, told)
    if api.skew_s is not None:
        yield clock_finding("clock of mlflow", api.skew_s, "MLflow")


def _unreached(shown: str, reason: object) -> Finding:
    if isinstance(reason, ssl.SSLCertVerificationError):
        fix = f"export {_CERTIFICATES[0]}=FILE, the certificate (PEM) of the authority that signed it"
        return Finding("mlflow", "problem", f"{shown}: its certificate is not trusted: {reason.verify_message}", fix)
    told = getattr(reason, "strerror", None) or str(reason).strip() or type(reason).__name__
    return Finding("mlflow", "problem", f"{shown}: {told}", f"start it, or correct tracking.uri; {_LATER}")


def ask(uri: str, path: str, environment: Mapping[str, str]) -> Answer:
    """GET a path of the server with the job's own credentials, through the proxies of this shell.

    Raises TimeoutError, OSError (URLError), ValueError or HTTPException.
    """
    parts = urlsplit(uri)
    bare = parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="")
    request = urllib.request.Request(bare.geturl().rstrip("/") + path)
    if (credentials := _authorization(parts.username, parts.password, environment)) is not None:
        request.add_unredirected_header("Authorization", credentials)
    before_s = time.time()
    try:
        answer = urllib.request.urlopen(request, timeout=HTTP_TIMEOUT_S, context=_trusted(uri, environment))
    except urllib.error.HTTPError as refused:
        answer = refused
    except urllib.error.URLError as error:
        if isinstance(error.reason, TimeoutError):
            raise TimeoutError from None
        raise
    with answer:
        skew_s = _skew_s(answer.headers["Date"], before_s)
        return Answer(answer.status, answer.read(2000).decode(errors="replace"), skew_s)


def _authorization(user: str | None, password: str | None, environment: Mapping[str, str]) -> str | None:
    """As MLflow's own client does: name and password go before a token."""
    user = unquote(user) if user else environment.get("MLFLOW_TRACKING_USERNAME")
    password = unquote(password) if password else environment.get("MLFLOW_TRACKING_PASSWORD")
    if user and password:
        return f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"
    token = environment.get("MLFLOW_TRACKING_TOKEN")
    return f"Bearer {token}" if token else None


def _trusted(uri: str, environment: Mapping[str, str]) -> ssl.SSLContext | None:
    """Whose certificates MLflow's own client trusts: not the machine's, but those of its settings, or certifi's."""
    if not uri.startswith("https://"):
        return None
    if environment.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in ("true", "1"):
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context
    named = next((environment[name] for name in _CERTIFICATES if environment.get(name)), None)
    trusted = Path(named) if named else installed_file("certifi", "cacert.pem")
    if trusted is not None and trusted.is_dir():
        return ssl.create_default_context(capath=trusted)
    return ssl.create_default_context(cafile=trusted)


def _is_mlflow(api: Answer) -> bool:
    return any(api.status == status and words in api.text for status, words in _ANSWERS)


def _skew_s(date: str | None, before_s: float) -> float | None:
    """A Date header has whole seconds."""
    try:
        return skew_of(parsedate_to_datetime(date).timestamp(), before_s - 1.0, time.time()) if date else None
    except ValueError:
        return None


def _judged(shown: str, api: Answer, told: Answer) -> Finding:
    """What two answers mean: of the API (or of an unwell /health), and of /version."""
    if api.status == 403 and _INVALID_HOST in api.text:
        host = urlsplit(shown).netloc
        fix = f"start the server with: mlflow server --allowed-hosts '{host},localhost:*,127.0.0.1:*'"
        return Finding("mlflow", "problem", f"{shown}: 403 {_INVALID_HOST}: it does not go by the name {host}", fix)
    if api.status in (401, 403):
        names = "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
        return Finding("mlflow", "problem", f"{shown}: {api.status}, it wants to know who you are", f"export {names}")
    if not _is_mlflow(api):
        fix = "is this MLflow, is its path right, and what does its log say?"
        return Finding("mlflow", "problem", f"{shown}: answers {api.status}, not as MLflow does", fix)
    server = told.text.strip() if told.status == 200 and len(told.text) < 30 else "of unknown version"
    client = _client_version()
    if server[:1].isdigit() and server.partition(".")[0] != client.partition(".")[0]:
        fix = "bring both to one major version"
        return Finding("mlflow", "warning", f"{shown}: MLflow {server}, but {client} is installed here", fix)
    return Finding("mlflow", "ok", f"{shown}: MLflow {server} takes our calls")


def _client_version() -> str:
    try:
        return version("mlflow")
    except PackageNotFoundError:
        return "none"
