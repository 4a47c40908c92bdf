"""What a fresh clone relies on: the locks, the packaging and the two commands."""

import importlib.metadata
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
LOCKS = ("requirements.lock", "requirements-dev.lock")


def pins(name: str) -> dict[str, str]:
    """Package: version, of a lock file."""
    text = (ROOT / name).read_text(encoding="utf-8")
    found = re.findall(r"^([a-z0-9-]+)(?:\[\S+\])?==(\S+) \\$", text, flags=re.MULTILINE)
    return dict(found)


def extras(name: str) -> dict[str, set[str]]:
    """Package: its extras, of those packages of a lock file that are pinned with any."""
    text = (ROOT / name).read_text(encoding="utf-8")
    found = re.findall(r"^([a-z0-9-]+)\[([a-z0-9,-]+)\]==", text, flags=re.MULTILINE)
    return {package: set(words.split(",")) for package, words in found}


def package(requirement: str) -> str:
    return re.split(r"[^A-Za-z0-9_-]", requirement)[0].lower().replace("_", "-")


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_holds_nothing_but_pins_and_hashes(name: str) -> None:
    for line in (ROOT / name).read_text(encoding="utf-8").splitlines():
        assert re.fullmatch(
            r"[a-z0-9-]+(\[[a-z0-9,-]+\])?==\S+ \\"
            r"|    --hash=sha256:[0-9a-f]{64}( \\)?|    # via [^/]*",
            line,
        ), line


@pytest.mark.parametrize("name", LOCKS)
def test_every_pin_has_a_hash(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert len(re.findall(r"^\S+ \\\n    --hash=", text, flags=re.MULTILINE)) == len(pins(name))


def test_what_is_tested_is_what_is_installed() -> None:
    tested = pins("requirements-dev.lock")
    assert {name: tested.get(name) for name in pins("requirements.lock")} == pins(
        "requirements.lock"
    )


@pytest.mark.parametrize("name", LOCKS)
def test_who_is_asked_for_with_an_extra_is_pinned_with_it(name: str) -> None:
    """Else older versions of pip find no pin for it, once there is a newer release."""
    pinned = extras(name)
    for locked in pins(name):
        for line in importlib.metadata.requires(locked) or ():
            asked = Requirement(line)
            if asked.extras and (asked.marker is None or asked.marker.evaluate({"extra": ""})):
                assert asked.extras <= pinned.get(canonicalize_name(asked.name), set()), line


def test_the_locks_pin_all_that_the_project_declares() -> None:
    data = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    needed = data["project"]["dependencies"] + data["build-system"]["requires"]
    assert {package(line) for line in needed} <= set(pins("requirements.lock"))
    developers = needed + data["project"]["optional-dependencies"]["dev"]
    assert {package(line) for line in developers} <= set(pins("requirements-dev.lock"))


def test_the_wheel_holds_both_packages_and_the_command(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("mfm_ops", "transports"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    build = "import hatchling.build, sys; print(hatchling.build.build_wheel(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", build, str(tmp_path)],
        cwd=source,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        names = wheel.namelist()
        (entry_points,) = (name for name in names if name.endswith("/entry_points.txt"))
        assert "mfm = mfm_ops.cli.main:main" in wheel.read(entry_points).decode()
    assert {name.partition("/")[0] for name in names if ".dist-info/" not in name} == {
        "mfm_ops",
        "transports",
    }
    assert "mfm_ops/machine/ids.py" in names


def bootstrap(
    *arguments: str, cwd: Path, path: str, python: str, **more: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh", "tools/bootstrap.sh", *arguments],
        cwd=cwd,
        env={"PATH": path, "PYTHON": python, **more},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """What bootstrap.sh reads, under a path with a space."""
    clone = tmp_path / "a clone"
    (clone / "tools").mkdir(parents=True)
    shutil.copy(ROOT / "tools/bootstrap.sh", clone / "tools")
    for name in ("pyproject.toml", *LOCKS):
        shutil.copy(ROOT / name, clone)
    return clone


def fake_program(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def test_a_missing_python_is_named(clone: Path) -> None:
    done = bootstrap("venv", "run", cwd=clone, path="/usr/bin:/bin", python="python3.99")
    assert done.returncode == 1
    assert "there is no 'python3.99' on PATH" in done.stderr
    assert not (clone / ".venv").exists()


def test_a_python_that_is_too_old_is_named(clone: Path, tmp_path: Path) -> None:
    old = fake_program(
        tmp_path / "bin", "python3.8", '[ "$1" = --version ] && echo Python 3.8.0 || exit 1'
    )
    done = bootstrap("venv", "run", cwd=clone, path="/usr/bin:/bin", python=str(old))
    assert done.returncode == 1
    assert "is Python 3.8.0, and 3.11 or newer is needed" in done.stderr


def test_without_root_or_apt_the_command_to_type_is_printed(clone: Path, tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    # Everything that the script itself runs, and none of what the tests need.
    for name in ("dirname", "id", "cat"):
        program = shutil.which(name)
        assert program is not None
        (tools / name).symlink_to(program)
    done = bootstrap("system", cwd=clone, path=str(tools), python="python3")
    assert done.returncode == 1
    assert (
        "sudo apt-get install --no-install-recommends bubblewrap nix-bin busybox-static git"
        in done.stderr
    )


def test_packages_that_cannot_be_fetched_end_in_a_clear_message(clone: Path) -> None:
    done = subprocess.run(
        ["/bin/sh", "tools/bootstrap.sh", "venv", "run"],
        cwd=clone,
        env={
            "PATH": "/usr/bin:/bin",
            "PYTHON": sys.executable,
            "PIP_CONFIG_FILE": "/dev/null",
            "PIP_NO_INDEX": "1",
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "This step needs the network" in done.stderr
    assert not list((clone / ".venv").glob(".stamp-*"))


def test_a_directory_that_was_not_made_here_is_left_alone(clone: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "precious").touch()
    for command in (("venv", "run"), ("clean",)):
        for place in (str(theirs), "."):
            done = bootstrap(
                *command, cwd=clone, path="/usr/bin:/bin", python=sys.executable, VENV=place
            )
            assert done.returncode == 1
            assert f"VENV names '{place}', which was not made here" in done.stderr
    assert (theirs / "precious").exists()
    assert (clone / "pyproject.toml").exists()


@pytest.mark.parametrize("made_by", [".made-by-bootstrap", ".stamp-run", ".stamp-dev"])
def test_what_was_made_here_is_removed_again(clone: Path, tmp_path: Path, made_by: str) -> None:
    place = tmp_path / "our own"
    place.mkdir()
    (place / made_by).touch()
    done = bootstrap("clean", cwd=clone, path="/usr/bin:/bin", python="no", VENV=str(place))
    assert done.returncode == 0, done.stderr
    assert not place.exists()
