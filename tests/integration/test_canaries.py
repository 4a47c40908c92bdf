"""Credentials planted in every input of the real command are in no byte that it keeps or prints."""

import base64
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.mfm_process import ROOT, Mfm, Result

MARKER = "harmless-marker-0451"

MODULE = """
import logging, os

from mfm_ops.machine.codes import error_info
from mfm_ops.machine.errors import ErrorCategory, ErrorInfo, StateError, StateFailure
from mfm_ops.machine.events import DomainEvent
from mfm_ops.machine.ids import ErrorCode, FactKey, OpId, StateId
from mfm_ops.machine.io import IoCall
from mfm_ops.machine.meta import DependencyStrategy, Idempotency, SideEffectKind, StateMeta
from mfm_ops.machine.plan import StateGraph, StateNode
from mfm_ops.machine.state import SnapshotPolicy, StateOutcome
from mfm_ops.sdk.operation import OpConfig, Operation


class LeakyConfig(OpConfig):
    way: str


class Leaks:
    def __init__(self, way, state_id):
        self.way, self.state_id = way, state_id

    def meta(self):
        return StateMeta(
            tags=(), depends_on=(), depends_on_strategy=DependencyStrategy.Latest,
            side_effects=SideEffectKind.ReadOnlyIo, idempotency=Idempotency.none(),
        )

    async def handle(self, ctx, io, rec):
        secret = os.environ["CANARY"]
        await getattr(self, self.way)(ctx, io, rec, secret)
        return StateOutcome(snapshot=SnapshotPolicy.OnSuccess)

    async def context_value(self, ctx, io, rec, secret):
        ctx.write("note", {"deep": [secret]})

    async def context_key(self, ctx, io, rec, secret):
        ctx.write("note", {secret: 1})

    async def context_base64(self, ctx, io, rec, secret):
        import base64
        ctx.write("note", base64.b64encode(f"token: {secret}".encode()).decode())

    async def context_hex(self, ctx, io, rec, secret):
        ctx.write("note", f"token: {secret}".encode().hex())

    async def context_escaped(self, ctx, io, rec, secret):
        ctx.write("note", '{"t":"' + "".join(f"\\\\u{ord(char):04x}" for char in secret) + '"}')

    async def event(self, ctx, io, rec, secret):
        await rec.emit(DomainEvent(name="app.said", payload={"note": secret}))

    async def event_name(self, ctx, io, rec, secret):
        await rec.emit(DomainEvent(name=f"app.{secret}", payload=None))

    async def error_message(self, ctx, io, rec, secret):
        raise ValueError(f"cannot log in with {secret}")

    async def error_chain(self, ctx, io, rec, secret):
        try:
            raise KeyError(secret)
        except KeyError as cause:
            raise RuntimeError("outer") from cause

    async def error_details(self, ctx, io, rec, secret):
        info = ErrorInfo(
            code=ErrorCode("app_failed"), category=ErrorCategory.Unknown, retryable=False,
            message=f"refused {secret}", details={"note": secret, "exit_code": secret},
        )
        raise StateFailure(StateError(state_id=StateId(self.state_id), info=info))

    async def error_code(self, ctx, io, rec, secret):
        info = ErrorInfo(
            code=ErrorCode(secret), category=ErrorCategory.Unknown, retryable=False,
            message="m", details=None,
        )
        raise StateFailure(StateError(state_id=StateId(self.state_id), info=info))

    async def safe_details(self, ctx, io, rec, secret):
        info = error_info("exec_failed", "it failed", program_path=f"/bin/{secret}", exit_code=1)
        raise StateFailure(StateError(state_id=StateId(self.state_id), info=info))

    async def log(self, ctx, io, rec, secret):
        logging.getLogger("leaky").error("token %s", secret)
        logging.getLogger("leaky").warning("extra", extra={"note": secret})

    async def request(self, ctx, io, rec, secret):
        await io.call(IoCall(namespace="exec", request={"kind": secret}))

    async def request_unknown(self, ctx, io, rec, secret):
        await io.call(IoCall(namespace="exec", request={"kind": "run_program_v1", "x": secret}))

    async def namespace(self, ctx, io, rec, secret):
        await io.call(IoCall(namespace=secret, request={}))

    async def fact_key(self, ctx, io, rec, secret):
        await io.record_value(FactKey(secret), 1)

    async def fact_value(self, ctx, io, rec, secret):
        await io.record_value(FactKey("k"), {"note": secret})


class Leaky(Operation[LeakyConfig]):
    op_id = OpId("leaky")
    op_version = "1"
    summary = "Leaks on purpose."
    config_model = LeakyConfig

    def expand(self, op_path, config, run_config):
        state_id = f"{op_path}.leak"
        return StateGraph((StateNode(StateId(state_id), Leaks(config.way, state_id)),), ())
"""


def canary(place: str) -> str:
    """A credential for one place only, in the shape of a GitHub token; it is none."""
    digest = hashlib.sha256(place.encode()).digest()
    return "ghp_" + base64.b64encode(digest).decode().translate({43: "q", 47: "Z", 61: "7"})[:36]


def disguises(secret: str) -> Iterator[bytes]:
    """The forms in which a store or a log could keep `secret`."""
    data = secret.encode()
    yield data
    yield data.hex().encode()
    yield data.hex().upper().encode()
    yield "".join(f"\\u{byte:04x}" for byte in data).encode()
    yield secret.encode("utf-16-le")
    for shift in range(3):
        # However it is aligned, all but the first and last group of base64 stays the same.
        yield base64.b64encode(b"\0" * shift + data)[4:-8]


def found_in(secret: str, data: bytes) -> bool:
    return any(form in data for form in disguises(secret))


class Site:
    """An `mfm` that writes only below `kept`, and the inputs, which stand outside of it."""

    def __init__(self, directory: Path) -> None:
        self.inputs = directory / "inputs"
        self.kept = directory / "kept"
        self.inputs.mkdir()
        self.kept.mkdir()
        site = self.inputs / "site"
        (site / "leaky-1.dist-info").mkdir(parents=True)
        (site / "leaky_op.py").write_text(MODULE)
        metadata = "Metadata-Version: 2.1\nName: leaky\nVersion: 1\n"
        (site / "leaky-1.dist-info" / "METADATA").write_text(metadata)
        (site / "leaky-1.dist-info" / "entry_points.txt").write_text(
            "[mfm.ops]\nleaky = leaky_op:Leaky\n"
        )
        self.mfm = Mfm(self.kept)
        self.mfm.environ |= {
            "PYTHONPATH": f"{ROOT}:{site}",
            "MFM_LOG_LEVEL": "debug",
            "HOME": str(self.kept / "home"),
            "XDG_STATE_HOME": str(self.kept / "home" / "state"),
            "TMPDIR": str(self.kept),
        }

    def places_with(self, secret: str, *results: Result) -> list[str]:
        """Where `secret` was found: in a file that mfm left, or in what it printed."""
        files = [path for path in self.kept.rglob("*") if path.is_file()]
        places = [str(path) for path in files if found_in(secret, path.read_bytes())]
        places += [str(path) for path in self.kept.rglob("*") if found_in(secret, bytes(path))]
        for result in results:
            texts = {"stdout": result.out, "stderr": result.err}
            places += [name for name, text in texts.items() if found_in(secret, text.encode())]
        return places

    def export_all(self) -> list[str]:
        """Export every run of the store to a file below `kept`; its ids."""
        listed = self.mfm("run", "list", "--json").data
        ids = [run["run_id"] for run in listed]
        for run_id in ids:
            done = self.mfm("run", "export", run_id, "-o", f"{run_id}.mfm", "--json")
            assert done.code == 0, done
        return ids


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def settled(site: Site, secret: str, result: Result, code: int, error: str) -> None:
    assert (result.code, json.loads(result.out)["error"]["code"]) == (code, error), result
    assert site.places_with(secret, result) == []


def test_the_search_itself_finds_what_is_stored(site: Site) -> None:
    done = site.mfm(*site.mfm.program("echo", f'"{MARKER}"'), "--json")
    assert done.code == 0, done
    places = site.places_with(MARKER, done)
    assert any("store.sqlite" in place for place in places)
    assert "stdout" in places


@pytest.mark.parametrize("form", range(8))
def test_the_search_sees_through_each_disguise(site: Site, form: int) -> None:
    secret = canary("disguise")
    (site.kept / "file").write_bytes(b"before" + list(disguises(secret))[form] + b"after")
    assert site.places_with(secret) != []


@pytest.mark.parametrize(
    ("place", "arguments"),
    [
        ("argv", ["--argv", "{}"]),
        ("argv_option", ["--argv", "--token={}"]),
        ("env", ["--env", "NOTE={}"]),
        ("env_name", ["--env", "{}=1"]),
        ("stdin_json", ["--stdin-json", '{{"a":["{}"]}}']),
        ("stdin_key", ["--stdin-json", '{{"{}":1}}']),
        ("idempotency_key", ["--effect", "--idempotency-key", "{}"]),
        ("skip_tag", ["--skip-tag", "{}"]),
        ("allow_flake", ["--allow-flake", "github:x/{}"]),
    ],
)
def test_an_option_of_a_run_is_refused(site: Site, place: str, arguments: list[str]) -> None:
    secret = canary(place)
    given = [argument.format(secret) for argument in arguments]
    result = site.mfm(*site.mfm.program("echo", "1"), *given, "--json")
    # A tag that no state has is refused before it is looked at any further.
    settled(site, secret, result, 2, "usage" if place == "skip_tag" else "secrets_detected")


def test_standard_input_and_files_are_refused(site: Site) -> None:
    secret = canary("stdin")
    document = json.dumps({"note": secret}).encode()
    (site.inputs / "in.json").write_bytes(document)
    program = site.mfm.program("cat")
    for source in ("-", f"@{site.inputs / 'in.json'}"):
        result = site.mfm(*program, "--stdin-json", source, "--json", stdin=document)
        settled(site, secret, result, 2, "secrets_detected")


def test_a_run_key_is_no_place_for_a_secret(site: Site) -> None:
    secret = canary("run_key")
    result = site.mfm(*site.mfm.program("echo", "1"), "--run-key", secret, "--json")
    assert site.places_with(secret, result) == []


@pytest.mark.parametrize(
    ("place", "script", "error"),
    [
        ("stdout", 'echo "{{\\"note\\":\\"$a$b\\"}}"', "secrets_detected"),
        ("stdout_text", 'echo "$a$b"', "exec_stdout_invalid_json"),
        ("stdout_key", 'echo "{{\\"$a$b\\":1}}"', "secrets_detected"),
        ("stdout_float", 'echo "{{\\"$a$b\\":1.5}}"', "exec_stdout_not_canonical"),
        ("stderr", 'echo "$a$b" >&2; exit 3', "exec_failed"),
        ("both", 'echo "$a$b"; echo "$a$b" >&2; exit 3', "exec_failed"),
    ],
)
def test_what_a_program_prints_is_not_kept(site: Site, place: str, script: str, error: str) -> None:
    secret = canary(place)
    # In two pieces, or the request would be refused before anything ran.
    pieces = f"a={secret[:20]} b={secret[20:]}; " + script.format()
    result = site.mfm(*site.mfm.program("sh", "-c", pieces), "--json")
    settled(site, secret, result, 1, error)
    site.export_all()
    assert site.places_with(secret) == []


@pytest.mark.parametrize(
    ("way", "code"),
    [
        ("context_value", "secrets_detected"),
        ("context_key", "secrets_detected"),
        ("context_base64", "secrets_detected"),
        ("context_hex", "secrets_detected"),
        ("context_escaped", "secrets_detected"),
        ("event", "secrets_detected"),
        ("event_name", "secrets_detected"),
        ("error_message", "state_panicked"),
        ("error_chain", "state_panicked"),
        ("error_details", "app_failed"),
        ("error_code", "error_redacted"),
        ("safe_details", "exec_failed"),
        ("request", "secrets_detected"),
        ("request_unknown", "secrets_detected"),
        ("namespace", "secrets_detected"),
        ("fact_key", "secrets_detected"),
        ("fact_value", "secrets_detected"),
    ],
)
def test_what_a_handler_says_is_not_kept(site: Site, way: str, code: str) -> None:
    secret = canary(way)
    result = site.mfm("op", "leaky", "--way", way, "--json", environ={"CANARY": secret})
    settled(site, secret, result, 1, code)
    site.export_all()
    assert site.places_with(secret) == []


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_what_a_handler_logs_is_withheld(site: Site, log_format: str) -> None:
    secret = canary("log")
    environ = {"CANARY": secret, "MFM_LOG_FORMAT": log_format}
    result = site.mfm("op", "leaky", "--way", "log", "--json", environ=environ)
    assert result.code == 0, result
    assert result.err
    assert site.places_with(secret, result) == []


@pytest.mark.parametrize("place", ["name", "label", "private_key", "content"])
def test_a_keystore_file_gives_nothing_away(site: Site, place: str) -> None:
    secret = canary(place)
    keystore = site.inputs / "keystore"
    keystore.mkdir()
    sound = next(path for path in (ROOT / "examples" / "keystore").iterdir() if path.is_file())
    document = json.loads(sound.read_bytes())
    name = "main.json"
    if place == "name":
        name = f"{secret}.json"
    elif place == "label":
        document["label"] = secret
    elif place == "private_key":
        document = {"version": 3, "privatekey": secret}
    data = json.dumps(document).encode() if place != "content" else f"token {secret}".encode()
    (keystore / name).write_bytes(data)
    result = site.mfm("op", "keystore_list", "--keystore", str(keystore), "--json")
    assert result.code == 0, result
    site.export_all()
    assert site.places_with(secret, result) == []


def test_settings_give_nothing_away(site: Site) -> None:
    secret = canary("settings")
    config = site.inputs / "mfm.toml"
    program = site.mfm.program("echo", "1")
    for text in (f'[log]\nlevel = "{secret}"\n', f"[{secret}]\na = 1\n", f"[log]\n{secret} = 1\n"):
        config.write_text(text)
        result = site.mfm("--config", str(config), *program, "--json")
        assert result.code == 2, result
        assert site.places_with(secret, result) == []
    for name in ("MFM_LOG_LEVEL", "MFM_EXEC_MEMORY_BYTES", "MFM_EXEC_SANDBOX"):
        result = site.mfm(*program, "--json", environ={name: secret})
        assert site.places_with(secret, result) == [], result


def test_an_allowed_variable_with_a_secret_is_refused(site: Site) -> None:
    secret = canary("allowlist")
    environ = {"MFM_PROVENANCE_ENV_ALLOWLIST": "LEAK", "LEAK": secret}
    result = site.mfm(*site.mfm.program("echo", "1"), "--json", environ=environ)
    settled(site, secret, result, 2, "secrets_detected")


def test_reasons_and_changed_values_are_refused(site: Site) -> None:
    secret = canary("control")
    failed = site.mfm(*site.mfm.program("false"), "--json")
    assert failed.code == 1, failed
    forked = ("run", "fork", "last", "--from", "run_program.main.run", "--set")
    for command in (
        (*forked, f'run_program.main.x="{secret}"'),
        (*forked, f"{secret}=1"),
        ("run", "resolve", "last", "run_program.main.run", "--as", "retry", "--why", secret),
        ("run", "cancel", "last", "--why", secret),
    ):
        result = site.mfm(*command, "--json")
        assert result.code != 0, result
        assert site.places_with(secret, result) == [], (command, result)
