"""`mfm doctor`: what works, what does not, what to do; it changes nothing."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.integration.mfm_process import Mfm


@pytest.fixture
def mfm(tmp_path: Path) -> Mfm:
    return Mfm(tmp_path)


def check(mfm: Mfm, name: str, *arguments: str, path: str | None = None) -> dict[str, Any]:
    environ = {} if path is None else {"PATH": path}
    report = mfm("doctor", "--json", *arguments, environ=environ).document["data"]
    found = next(check for check in report["checks"] if check["name"] == name)
    assert isinstance(found, dict)
    return found


def test_a_host_that_can_do_all_is_healthy(mfm: Mfm) -> None:
    result = mfm("doctor")
    assert result.code == 0
    assert "sandbox: bubblewrap" in result.out
    assert "all is well" in result.out
    assert not mfm.store.exists()


def test_the_report_is_one_document(mfm: Mfm) -> None:
    data = mfm("doctor", "--json").data
    assert data["healthy"] is True
    assert {check["name"] for check in data["checks"]} >= {"store", "sandbox", "nix", "git"}
    assert {"mfm", "python", "apsw", "pydantic"} <= data["versions"].keys()
    assert [op["op_id"] for op in data["ops"]] == ["keystore_list", "nix_app", "run_program"]
    sources = {setting["key"]: setting["source"] for setting in data["settings"]}
    assert sources["store.path"] == "environment"
    assert sources["exec.network"] == "default"


def test_without_bubblewrap_it_says_what_to_install(mfm: Mfm, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    found = check(mfm, "sandbox", path=str(tmp_path / "bin"))
    assert (found["grade"], found["summary"]) == ("failed", "bubblewrap: missing")
    assert "bubblewrap" in found["hint"]
    assert mfm("doctor", environ={"PATH": str(tmp_path / "bin")}).code == 2
    assert check(mfm, "nix", path=str(tmp_path / "bin"))["grade"] == "absent"


def test_a_bubblewrap_that_does_not_run_is_not_called_missing(mfm: Mfm, tmp_path: Path) -> None:
    place = tmp_path / "bin"
    place.mkdir()
    (place / "bwrap").write_text("#!/bin/sh\nexit 1\n")
    (place / "bwrap").chmod(0o755)
    found = check(mfm, "sandbox", path=str(place))
    assert (found["grade"], found["summary"]) == ("failed", "bubblewrap: does_not_run")
    assert str(place / "bwrap") in found["hint"]


def test_a_sandbox_that_is_off_is_a_warning(mfm: Mfm, tmp_path: Path) -> None:
    (tmp_path / "off.toml").write_text('[exec]\nsandbox = "off"\n')
    assert check(mfm, "sandbox", "--config", "off.toml")["grade"] == "warning"


def test_paths_that_are_not_there_are_named(mfm: Mfm, tmp_path: Path) -> None:
    (tmp_path / "named.toml").write_text('[exec]\nread_only_paths = ["/no/such/path"]\n')
    found = check(mfm, "sandbox", "--config", "named.toml")
    assert "not on this host: /no/such/path" in found["details"]


def test_a_file_that_is_no_store_fails(mfm: Mfm) -> None:
    mfm.store.write_bytes(b"something else entirely, of some length" * 30)
    found = check(mfm, "store")
    assert found["grade"] == "failed"
    assert found["summary"].startswith("store_not_mfm")
    assert f"path: {mfm.store}" in found["details"]
    assert mfm("doctor").code == 2


def test_a_store_without_a_place_names_the_setting(mfm: Mfm) -> None:
    nowhere = {"HOME": None, "XDG_STATE_HOME": None, "MFM_STORE": None}
    report = mfm("doctor", "--json", environ=nowhere).document["data"]
    details = next(check for check in report["checks"] if check["name"] == "store")["details"]
    assert "key: store.path" in details
    assert any("set MFM_STORE" in detail for detail in details)


def test_a_store_that_is_there_is_described(mfm: Mfm) -> None:
    assert mfm(*mfm.program("echo", "1")).code == 0
    found = check(mfm, "store")
    assert (found["grade"], found["summary"]) == ("ok", "can be written")
    assert str(mfm.store) in found["details"]


def test_a_nix_that_does_not_work_is_a_warning(mfm: Mfm, tmp_path: Path) -> None:
    bin_dir = tmp_path / "bin"
    bin_dir.mkdir()
    (bin_dir / "nix").write_text("#!/bin/sh\nexit 7\n")
    (bin_dir / "nix").chmod(0o755)
    found = check(mfm, "nix", path=str(bin_dir))
    assert (found["grade"], found["summary"]) == ("warning", "exit code 7")


def test_an_empty_file_is_a_store_to_come(mfm: Mfm) -> None:
    mfm.store.write_bytes(b"")
    found = check(mfm, "store")
    assert (found["grade"], found["summary"]) == ("ok", "empty; the first run makes it a store")
    assert mfm(*mfm.program("echo", "1")).code == 0


def test_a_git_that_does_not_work_is_a_warning(mfm: Mfm, tmp_path: Path) -> None:
    bin_dir = tmp_path / "bin"
    bin_dir.mkdir()
    (bin_dir / "git").write_text("#!/bin/sh\nexit 7\n")
    (bin_dir / "git").chmod(0o755)
    found = check(mfm, "git", path=str(bin_dir))
    assert (found["grade"], found["summary"]) == ("warning", "exit code 7")
    for said in ("", "nonsense"):
        (bin_dir / "git").write_text(f"#!/bin/sh\necho {said}\n")
        found = check(mfm, "git", path=str(bin_dir))
        assert (found["grade"], found["summary"]) == ("warning", "does not answer as git does")


BUILDS = """#!/bin/sh
case "$*" in
  --version) echo 'nix (Nix) 2.8.0';;
  *ping) echo 'Store URL: {store}';;
  *show-config*) echo '{{"build-users-group":{{"value":"{group}"}},"max-free":{{"value":1e19}}}}';;
esac
"""


@pytest.mark.parametrize(
    ("store", "group", "lacking"),
    [
        ("local", "no_such_group", "there is no group no_such_group"),
        ("local", "nogroup", "the group nogroup has no members"),
        ("local", "", None),
        ("daemon", "no_such_group", None),
    ],
)
def test_root_is_told_when_its_nix_can_build_nothing(
    mfm: Mfm, tmp_path: Path, store: str, group: str, lacking: str | None
) -> None:
    bin_dir = tmp_path / "bin"
    bin_dir.mkdir()
    (bin_dir / "nix").write_text(BUILDS.format(store=store, group=group))
    (bin_dir / "nix").chmod(0o755)
    found = check(mfm, "nix", path=str(bin_dir))
    if lacking is None or os.geteuid() != 0:
        assert (found["grade"], found["summary"]) == ("ok", "nix (Nix) 2.8.0")
    else:
        summary = f"nix (Nix) 2.8.0, but as root it can build nothing: {lacking}"
        assert (found["grade"], found["summary"]) == ("warning", summary)
        assert "build-users-group" in found["hint"]


def test_the_real_nix_is_judged_by_its_own_configuration(mfm: Mfm) -> None:
    def grade(group: str) -> str:
        environ = {"NIX_CONFIG": f"build-users-group = {group}", "NIX_REMOTE": "local"}
        report = mfm("doctor", "--json", environ=environ).document["data"]
        return str(next(one["grade"] for one in report["checks"] if one["name"] == "nix"))

    assert grade("") == "ok"
    assert grade("no_such_group") == ("warning" if os.geteuid() == 0 else "ok")


@pytest.mark.parametrize("as_json", [(), ("--json",)])
def test_a_report_can_be_passed_on(mfm: Mfm, as_json: tuple[str, ...]) -> None:
    token = "ghp_" + "x1Yz3456789" * 3 + "abc"
    given = {
        "MFM_STORE": f"/tmp/{token}/store",
        "MFM_EXEC_READ_ONLY_PATHS": f"/no/{token}",
        "MFM_PROVENANCE_ENV_ALLOWLIST": token,
    }
    result = mfm("doctor", *as_json, environ=given)
    assert result.code == 0
    assert token not in result.out + result.err


def test_settings_errors_come_before_everything(mfm: Mfm, tmp_path: Path) -> None:
    (tmp_path / "mfm.toml").write_text("nonsense = 1\n")
    result = mfm("doctor", "--json")
    assert (result.code, json.loads(result.out)["error"]["code"]) == (2, "settings_invalid")


@pytest.mark.parametrize(
    ("script", "summary"),
    [
        ("echo 'nix (Nix) 2.4'", "nix (Nix) 2.4 is too old"),
        (
            "[ \"$1\" = --version ] && echo 'nix (Nix) 2.8.0'",
            "nix (Nix) 2.8.0, but its store cannot be used",
        ),
    ],
)
def test_a_nix_that_no_flake_can_be_asked_of_is_a_warning(
    mfm: Mfm, tmp_path: Path, script: str, summary: str
) -> None:
    bin_dir = tmp_path / "bin"
    bin_dir.mkdir()
    (bin_dir / "nix").write_text(f"#!/bin/sh\n{script}\n")
    (bin_dir / "nix").chmod(0o755)
    found = check(mfm, "nix", path=str(bin_dir))
    assert (found["grade"], found["summary"]) == ("warning", summary)
    assert found["hint"]
