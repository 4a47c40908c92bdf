"""The project's flake, with real Nix and without internet.

nixpkgs cannot be fetched here, so the flake is evaluated and built against a stubbed nixpkgs; that
nixpkgs' own packages fit is not shown by these tests.
"""

import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SYSTEMS = ("x86_64-linux", "aarch64-linux")
NIX_CONFIG = """
experimental-features = nix-command flakes
build-users-group =
sandbox = true
sandbox-fallback = false
sandbox-paths = /bin/sh=/bin/busybox
substituters =
use-registries = false
download-attempts = 1
connect-timeout = 5
accept-flake-config = false
allow-import-from-derivation = false
warn-dirty = false
"""


@pytest.fixture
def flake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the flake and of what it builds, beside the stubbed nixpkgs."""
    monkeypatch.setenv("NIX_CONFIG", NIX_CONFIG)
    (tmp_path / "home").mkdir(exist_ok=True)
    copy = tmp_path / "flake"
    copy.mkdir()
    for name in ("flake.nix", "flake.lock", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("mfm_ops", "transports"):
        shutil.copytree(ROOT / name, copy / name, ignore=ignored)
    (copy / "tests").mkdir()
    stub = tmp_path / "nixpkgs"
    stub.mkdir()
    shutil.copy(ROOT / "tests/integration/stubbed_nixpkgs.nix", stub / "flake.nix")
    return copy


def nix(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["nix", *arguments],
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def stubbed(*arguments: str, cwd: Path) -> Any:
    """What `nix <arguments> --json` prints for the flake with its nixpkgs stubbed."""
    override = ("--override-input", "nixpkgs", f"path:{cwd.parent / 'nixpkgs'}")
    done = nix(*arguments, "--json", *override, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def lock() -> dict[str, Any]:
    data: dict[str, Any] = json.loads((ROOT / "flake.lock").read_text(encoding="utf-8"))
    return data


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


def test_nix_accepts_the_lock_as_it_is(flake: Path) -> None:
    done = nix("flake", "metadata", "--json", "--no-update-lock-file", "path:.", cwd=flake)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["locks"] == lock()


def test_nix_refuses_a_lock_of_another_input(flake: Path) -> None:
    text = (flake / "flake.nix").read_text(encoding="utf-8")
    (flake / "flake.nix").write_text(text.replace("nixos-25.11", "nixos-00.00"), encoding="utf-8")
    done = nix("flake", "metadata", "--json", "--no-update-lock-file", "path:.", cwd=flake)
    assert done.returncode == 1


def test_with_nixpkgs_stubbed_every_output_evaluates(flake: Path) -> None:
    shown = stubbed("flake", "show", cwd=flake)
    for system in SYSTEMS:
        assert shown["packages"][system]["default"]["name"].startswith("mfm-ops-")
        assert shown["apps"][system]["mfm"] == shown["apps"][system]["default"] == {"type": "app"}
        assert shown["devShells"][system]["default"]["type"] == "derivation"


def test_with_nixpkgs_stubbed_the_app_is_the_built_package(flake: Path) -> None:
    system = stubbed("eval", "--impure", "--expr", "builtins.currentSystem", cwd=flake)
    (built,) = stubbed("build", "--no-link", "path:.", cwd=flake)
    program = stubbed("eval", f"path:.#apps.{system}.mfm.program", cwd=flake)
    assert program == f"{built['outputs']['out']}/bin/mfm"


def test_the_build_sees_only_what_it_reads(flake: Path) -> None:
    (built,) = stubbed("build", "--no-link", "path:.", cwd=flake)
    program = Path(built["outputs"]["out"]) / "bin/mfm"
    assert program.read_text(encoding="utf-8").split() == [
        "LICENSE",
        "README.md",
        "mfm_ops",
        "pyproject.toml",
        "transports",
    ]


def test_nothing_but_the_sources_decides_the_build(flake: Path) -> None:
    (first,) = stubbed("build", "--no-link", "path:.", cwd=flake)
    (flake / "tests/test_more.py").write_text("", encoding="utf-8")
    (second,) = stubbed("build", "--no-link", "path:.", cwd=flake)
    (flake / "mfm_ops/more.py").write_text("", encoding="utf-8")
    (third,) = stubbed("build", "--no-link", "path:.", cwd=flake)
    assert first == second
    assert first["outputs"] != third["outputs"]
