"""The project's flake, with real Nix and without internet.

nixpkgs cannot be fetched here: the flake is evaluated, built and run against *stubbed nixpkgs*,
whose packages are the host's. That nixpkgs' own packages fit is not shown by these tests.
"""

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SYSTEM = f"{platform.machine()}-linux"
SYSTEMS = ("x86_64-linux", "aarch64-linux")
PARTS = (
    "LICENSE",
    "README.md",
    "examples",
    "flake.lock",
    "flake.nix",
    "mfm_ops",
    "pyproject.toml",
    "transports",
)
NIX_CONFIG = """
experimental-features = nix-command flakes
build-users-group =
sandbox = true
sandbox-fallback = false
sandbox-paths = {sandbox_paths}
substituters =
use-registries = false
download-attempts = 1
connect-timeout = 5
accept-flake-config = false
allow-import-from-derivation = false
warn-dirty = false
"""


def environment_of_python(base: Path) -> Path:
    """This Python's environment, under a name without the spaces that sandbox-paths is split at."""
    if " " not in sys.prefix:
        return Path(sys.prefix)
    (base / "python").symlink_to(sys.prefix)
    return base / "python"


def host_paths(environment: Path) -> str:
    """What the host's Python needs to be seen of it inside Nix's sandbox."""
    base = Path(sys.base_prefix)
    wanted = [environment, base, base.resolve(), *map(Path, ("/lib", "/lib64", "/usr/lib"))]
    paths = {path for path in wanted if path.exists()}
    busybox = shutil.which("busybox")
    return " ".join([f"/bin/sh={busybox}", f"/bin/busybox={busybox}", *sorted(map(str, paths))])


def host_nix(environment: Path) -> str:
    """The stubbed nixpkgs' host.nix: the programs of this host by the package that has them."""
    nix = Path(str(shutil.which("nix")))
    programs = {
        "bubblewrap": [str(shutil.which("bwrap"))],
        "git": [str(shutil.which("git"))],
        "nix": sorted(str(path) for path in nix.parent.glob("nix*") if os.access(path, os.X_OK)),
    }
    lines = [
        f"{name} = [ {' '.join(json.dumps(path) for path in paths)} ];"
        for name, paths in programs.items()
    ]
    return "\n".join(
        [
            "{",
            f"python = {json.dumps(str(environment / 'bin' / Path(sys.executable).name))};",
            *lines,
            "}",
        ]
    )


def git(directory: Path, *arguments: str, **environ: str) -> str:
    done = subprocess.run(
        ["git", *arguments],
        cwd=directory,
        env={**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", **environ},
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip()


def commit(directory: Path) -> str:
    """Commit all that is in `directory`, always by the same hand at the same time."""
    who = {
        f"GIT_{role}_{key}": value
        for role in ("AUTHOR", "COMMITTER")
        for key, value in {
            "NAME": "Tests",
            "EMAIL": "tests@example.invalid",
            "DATE": "2024-01-02T03:04:05Z",
        }.items()
    }
    if not (directory / ".git").exists():
        git(directory, "init", "--quiet", "--initial-branch=main")
    git(directory, "add", "--all")
    git(directory, "commit", "--quiet", "--message=x", **who)
    return git(directory, "rev-parse", "HEAD")


def copy_project(directory: Path) -> Path:
    """The flake and what it builds, as the working tree has it."""
    directory.mkdir(parents=True)
    ignored = shutil.ignore_patterns("__pycache__")
    for name in PARTS:
        path = ROOT / name
        if path.is_dir():
            shutil.copytree(path, directory / name, ignore=ignored)
        else:
            shutil.copy(path, directory)
    return directory


@dataclass
class Flake:
    """A git repository with a copy of the project, and Nix with nixpkgs stubbed."""

    top: Path
    stub: Path
    environ: dict[str, str] = field(default_factory=dict)
    override: bool = True

    def nix(self, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["nix", *arguments],
            cwd=cwd or self.top,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    def stubbed(self, *arguments: str, cwd: Path | None = None) -> str:
        """What a command of Nix prints for the flake, its nixpkgs stubbed."""
        end = arguments.index("--") if "--" in arguments else len(arguments)
        override = ("--override-input", "nixpkgs", f"path:{self.stub}") if self.override else ()
        done = self.nix(*arguments[:end], *override, *arguments[end:], cwd=cwd)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def run(self, *arguments: str, cwd: Path | None = None) -> Any:
        """`nix run .#mfm -- --json ARGUMENTS`: the document that it prints."""
        return json.loads(
            self.stubbed("run", f"{self.ref}#mfm", "--", "--json", *arguments, cwd=cwd)
        )

    @property
    def ref(self) -> str:
        return f"git+file://{self.top}"


def make_flake(base: Path) -> Flake:
    top, stub = copy_project(base / "project"), base / "stubbed-nixpkgs"
    stub.mkdir()
    shutil.copy(ROOT / "tests/integration/stubbed_nixpkgs.nix", stub / "flake.nix")
    environment = environment_of_python(base)
    (stub / "host.nix").write_text(host_nix(environment), encoding="utf-8")
    commit(top)
    foreign = ("GIT_", "MFM_", "NIX_", "XDG_", "PYTHON", "PIP_")
    environ = {key: value for key, value in os.environ.items() if not key.startswith(foreign)}
    config = NIX_CONFIG.format(sandbox_paths=host_paths(environment))
    environ |= {
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "HOME": str(base / "home"),
        "MFM_STORE": str(base / "store.sqlite"),
        "NIX_CONFIG": config,
    }
    return Flake(top, stub, environ)


@pytest.fixture(scope="module")
def flake(tmp_path_factory: pytest.TempPathFactory) -> Flake:
    """The flake of a clean commit. Tests leave it as it is, so that it is built once."""
    return make_flake(tmp_path_factory.mktemp("flake"))


@pytest.fixture
def scratch(tmp_path: Path) -> Flake:
    """A flake that a test may change."""
    return make_flake(tmp_path)


def lock() -> dict[str, Any]:
    data: dict[str, Any] = json.loads((ROOT / "flake.lock").read_text(encoding="utf-8"))
    return data


# --- what is written down ------------------------------------------------------------------------


def test_the_lock_pins_one_input_by_revision_and_content() -> None:
    data = lock()
    assert data["version"] == 7
    assert data["nodes"][data["root"]]["inputs"] == {"nixpkgs": "nixpkgs"}
    assert sorted(data["nodes"]) == ["nixpkgs", "root"]
    locked = data["nodes"]["nixpkgs"]["locked"]
    assert re.fullmatch(r"[0-9a-f]{40}", locked["rev"])
    assert re.fullmatch(r"sha256-[A-Za-z0-9+/]{43}=", locked["narHash"])


def test_the_lock_and_the_inputs_name_one_source() -> None:
    original = lock()["nodes"]["nixpkgs"]["original"]
    url = f"{original['type']}:{original['owner']}/{original['repo']}/{original['ref']}"
    assert f'inputs.nixpkgs.url = "{url}";' in (ROOT / "flake.nix").read_text(encoding="utf-8")


def test_the_flake_builds_with_every_dependency_that_the_package_declares() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {re.split(r"[^A-Za-z0-9_-]", line)[0] for line in project["dependencies"]}
    text = (ROOT / "flake.nix").read_text(encoding="utf-8")
    named = set(re.findall(r"pkgs\.python3Packages\.([a-z0-9-]+)$", text, flags=re.MULTILINE))
    assert named == declared


def test_nix_parses_the_flake() -> None:
    for path in (ROOT / "flake.nix", ROOT / "tests/integration/stubbed_nixpkgs.nix"):
        done = subprocess.run(
            ["nix-instantiate", "--parse", path], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr


def test_nix_accepts_the_lock_as_it_is(flake: Flake) -> None:
    done = flake.nix("flake", "metadata", "--json", "--no-update-lock-file", flake.ref)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["locks"] == lock()


def test_nix_refuses_a_lock_of_another_input(scratch: Flake) -> None:
    text = (scratch.top / "flake.nix").read_text(encoding="utf-8")
    (scratch.top / "flake.nix").write_text(text.replace("nixos-25.11", "nixos-00.00"))
    done = scratch.nix("flake", "metadata", "--json", "--no-update-lock-file", scratch.ref)
    assert done.returncode == 1


# --- what it evaluates to, with nixpkgs stubbed --------------------------------------------------


def test_every_output_evaluates_for_every_system(flake: Flake) -> None:
    shown = json.loads(flake.stubbed("flake", "show", "--json", flake.ref))
    for system in SYSTEMS:
        assert shown["packages"][system].keys() == {"default", "mfm"}
        assert shown["packages"][system]["default"]["name"].startswith("mfm-ops-")
        assert shown["apps"][system] == {"default": {"type": "app"}, "mfm": {"type": "app"}}
        assert shown["checks"][system].keys() == {"mfm", "reproducible"}
        assert shown["devShells"][system]["default"]["type"] == "derivation"
        assert shown["formatter"][system]["type"] == "derivation"


def baked(flake: Flake, ref: str) -> dict[str, Any]:
    """What the build of `ref` will say of itself."""
    attribute = f"{ref}#packages.{SYSTEM}.mfm.provenance"
    found: dict[str, Any] = json.loads(flake.stubbed("eval", "--json", attribute))
    return found


@pytest.fixture
def locked(tmp_path: Path) -> Flake:
    """A flake whose one input is the stub, and locked: nothing needs to be overridden."""
    found = make_flake(tmp_path)
    text = (found.top / "flake.nix").read_text(encoding="utf-8")
    url = "github:NixOS/nixpkgs/nixos-25.11"
    assert url in text
    (found.top / "flake.nix").write_text(text.replace(url, f"path:{found.stub}"))
    found.override = False
    found.stubbed("flake", "lock")
    return found


def test_a_clean_and_locked_commit_is_baked_with_its_revision_and_content(locked: Flake) -> None:
    commit_id = commit(locked.top)
    metadata = json.loads(locked.stubbed("flake", "metadata", "--json", locked.ref))
    data = (locked.top / "flake.lock").read_bytes()
    found = baked(locked, locked.ref)
    assert found == {
        "dirty": False,
        "git_commit": commit_id,
        "flake_lock_hash": hashlib.sha256(data).hexdigest(),
        "flake": {
            "url": f"path:{metadata['path']}",
            "rev": commit_id,
            "nar_hash": metadata["locked"]["narHash"],
            "lock": "committed",
        },
        "nix_system": SYSTEM,
        "nix_version": "0-host",
    }
    # What is baked is a reference to the same flake.
    reference = f"{found['flake']['url']}?narHash={found['flake']['nar_hash']}"
    again = json.loads(locked.stubbed("flake", "metadata", "--json", reference))
    assert again["locked"]["narHash"] == found["flake"]["nar_hash"]


def test_a_lock_that_is_not_committed_yet_is_not_called_so(locked: Flake) -> None:
    found = baked(locked, locked.ref)
    assert found["flake"]["rev"] is None
    assert found["flake"]["lock"] == "unknown"
    # Nix 2.8 does not say of which commit a dirty tree is; newer ones do.
    assert found["dirty"] in (None, True)


def test_a_build_from_other_inputs_than_the_locks_says_so(flake: Flake) -> None:
    found = baked(flake, flake.ref)
    metadata = json.loads(flake.stubbed("flake", "metadata", "--json", flake.ref))
    # Nix itself no longer vouches for the revision then.
    assert found["flake"] == {
        "url": f"path:{metadata['path']}",
        "rev": None,
        "nar_hash": metadata["locked"]["narHash"],
        "lock": "overridden",
    }


# --- built and run, with nixpkgs stubbed ---------------------------------------------------------


@pytest.fixture(scope="module")
def built(flake: Flake) -> Path:
    """The store path of the package, which is built for this."""
    printed = flake.stubbed("build", "--no-link", "--json", flake.ref)
    return Path(json.loads(printed)[0]["outputs"]["out"])


def test_the_build_holds_what_it_says_of_itself(flake: Flake, built: Path) -> None:
    (path,) = built.glob("lib/python*/site-packages/mfm_ops/_build.json")
    assert json.loads(path.read_bytes()) == baked(flake, flake.ref)


def test_one_commit_is_one_package_wherever_it_was_cloned(
    flake: Flake, built: Path, tmp_path: Path
) -> None:
    git(tmp_path, "clone", "--quiet", str(flake.top), "elsewhere")
    clone = Flake(tmp_path / "elsewhere", flake.stub, flake.environ)
    printed = clone.stubbed("eval", "--raw", f"{clone.ref}#packages.{SYSTEM}.mfm.outPath")
    assert printed == str(built)


def test_the_app_is_the_built_package(flake: Flake, built: Path) -> None:
    program = flake.stubbed("eval", "--raw", f"{flake.ref}#apps.{SYSTEM}.mfm.program")
    assert program == f"{built}/bin/mfm"


def test_an_operation_runs_twice_from_one_store_path_with_one_manifest(
    flake: Flake, built: Path, tmp_path: Path
) -> None:
    keystores = str(ROOT / "examples/keystore")
    first = flake.run("op", "keystore_list", "--keystore", keystores, cwd=tmp_path)["data"]
    again = flake.stubbed("build", "--no-link", "--json", flake.ref)
    assert json.loads(again)[0]["outputs"]["out"] == str(built)
    second = flake.run("op", "keystore_list", "--keystore", keystores, cwd=tmp_path)["data"]
    assert first["run_id"] != second["run_id"]
    assert first["manifest_id"] == second["manifest_id"]
    assert first["final_snapshot_id"] == second["final_snapshot_id"]
    build = flake.run("run", "manifest", "last")["data"]["manifest"]["build"]
    assert build["runs_from"] == "nix_store"
    said = baked(flake, flake.ref)
    assert build["flake"] == {key: value for key, value in said["flake"].items() if value}
    assert build["flake_lock_hash"] == said["flake_lock_hash"]
    assert (build["nix_version"], build["nix_system"]) == ("0-host", SYSTEM)


def test_the_workspace_is_the_operators_and_not_mfms(flake: Flake, built: Path) -> None:
    keystores = str(ROOT / "examples/keystore")
    required = ("--require-clean", "--require-locked")
    flake.run("op", "keystore_list", "--keystore", keystores, *required, cwd=flake.top)
    manifest = flake.run("run", "manifest", "last")["data"]["manifest"]
    commit_id = git(flake.top, "rev-parse", "HEAD")
    assert manifest["workspace"]["flake"] == {"url": ".", "rev": commit_id, "lock": "committed"}
    assert "lock_hashes" not in manifest["build"]


def test_bubblewrap_and_nix_come_with_it(flake: Flake, built: Path, tmp_path: Path) -> None:
    environ = {
        "HOME": str(tmp_path / "home"),
        "MFM_STORE": str(tmp_path / "store.sqlite"),
        "NIX_CONFIG": flake.environ["NIX_CONFIG"],
        "PATH": "/nonexistent",
    }
    done = subprocess.run(
        [built / "bin/mfm", "--json", "doctor"],
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    checks = {check["name"]: check for check in json.loads(done.stdout)["data"]["checks"]}
    assert checks["sandbox"]["grade"] == "ok"
    assert checks["nix"]["grade"] == "ok"


APP_FLAKE = """
{
  outputs = _: {
    packages.SYSTEM.hello = derivation {
      name = "hello";
      system = "SYSTEM";
      builder = "/bin/sh";
      args = [ "-c" ''
        mkdir -p $out/bin
        cp /bin/busybox $out/bin/busybox
        printf '#!%s/bin/busybox sh\\necho "{\\\\"hello\\\\": true}"\\n' $out > $out/bin/hello
        chmod +x $out/bin/hello
      '' ];
    };
  };
}
"""


def test_an_app_of_a_flake_is_resolved_and_run_by_it(
    flake: Flake, built: Path, tmp_path: Path
) -> None:
    app = tmp_path / "app"
    app.mkdir()
    (app / "flake.nix").write_text(APP_FLAKE.replace("SYSTEM", SYSTEM))
    commit(app)
    ref = f"git+file://{app}"
    arguments = ("op", "nix_app", "--app", f"{ref}#hello", "--allow-flake", ref)
    first = flake.run(*arguments, cwd=tmp_path)["data"]
    second = flake.run(*arguments, cwd=tmp_path)["data"]
    assert first["manifest_id"] == second["manifest_id"]
    assert first["final_snapshot_id"] == second["final_snapshot_id"]
    manifest = flake.run("run", "manifest", "last")["data"]["manifest"]
    assert manifest["build"]["nix_version"] == "0-host"


def test_the_checks_of_the_flake_pass(flake: Flake, built: Path) -> None:
    flake.stubbed("flake", "check", flake.ref)
