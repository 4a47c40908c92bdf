"""`mfm op nix_app` as an operator runs it: real Nix, the real sandbox, a store on disk."""

import json
import os
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import anyio
import pytest

from mfm_ops.app.nix_site import workspace_of
from mfm_ops.machine.errors import StorageFailure
from mfm_ops.storage.sqlite import open_sqlite_store
from tests.integration.mfm_process import ROOT, Mfm
from tests.integration.nix_flakes import GOOD, NIX_CONFIG, SYSTEM, Flakes, counting_nix
from transports.nix_refs import Workspace

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def flakes(tmp_path_factory: pytest.TempPathFactory) -> Flakes:
    found = Flakes(tmp_path_factory.mktemp("flakes"))
    found.git("good", GOOD, run="#!/bin/sh\n")
    return found


@pytest.fixture
def mfm(flakes: Flakes, tmp_path: Path) -> Mfm:
    """`mfm` in the tree of the good flake, with a store elsewhere."""
    made = Mfm(flakes.root / "good")
    made.store = tmp_path / "store.sqlite"
    made.environ |= {
        "MFM_STORE": str(made.store),
        "MFM_EXEC_ALLOW_PREFIXES": "/nix/store",
        "HOME": str(flakes.home),
        "NIX_CONFIG": NIX_CONFIG,
    }
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        made.environ.pop(name, None)
    return made


def app(name: str, *options: str) -> tuple[str, ...]:
    return ("op", "nix_app", "--app", f"path:.#{name}", "--allow-flake", "path:.", *options)


def facts(mfm: Mfm) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = mfm("run", "facts", "last", "--json").data["facts"]
    return found


def roots(mfm: Mfm) -> list[Path]:
    return sorted(mfm.store.with_name(f"{mfm.store.name}.d").glob("nix-roots/*"))


async def until_resolved(mfm: Mfm) -> None:
    """Until the store holds the first fact of its one run."""
    with anyio.fail_after(120):
        while True:
            # It fails as long as the store is not there, or only half made.
            try:
                async with open_sqlite_store(mfm.store, read_only=True) as store:
                    for run in await store.list_runs():
                        bodies = await store.read_raw(run.run_id, 1)
                        names = [json.loads(body)["event"].get("Domain", {}) for body in bodies]
                        if any(event.get("name") == "fact_recorded" for event in names):
                            return
            except StorageFailure:
                pass
            await anyio.sleep(0.02)


def test_two_facts_tell_all_of_a_run_and_its_manifest_what_it_was_allowed(mfm: Mfm) -> None:
    done = mfm(*app("say", "--stdin-json", "1"), "--json")
    assert done.data["outputs"] == {"result": 1}
    first, second = facts(mfm)
    assert first["key"].startswith("mfm:nix:preflight|state:nix_app.main.resolve|req:")
    assert second["key"].startswith("mfm:exec|state:nix_app.main.run|req:")
    assert first["meta"]["program"] == second["meta"]["program"]
    assert first["meta"]["policy_digest"] == second["meta"]["policy_digest"]
    run_config = mfm("run", "manifest", "last", "--json").data["manifest"]["run_config"]
    assert run_config["nix_flake_allowlist"] == ["github:willyrgf/mfm", "path:."]
    policy = json.loads(mfm("artifact", "get", first["meta"]["policy_digest"]).out)
    assert policy["nix"]["allow_dirty"] is False


def test_a_flake_that_was_not_allowed_is_not_resolved(mfm: Mfm) -> None:
    result = mfm("op", "nix_app", "--app", "path:.#say", "--json")
    assert result.code == 1
    assert result.error["code"] == "nix_app_not_allowed"
    assert result.error["details"]["reason"] == "not_in_allowlist"
    assert "--allow-flake" in result.error["hint"]


@pytest.mark.parametrize("ref", ["nixpkgs", "", "path:", "github:a/b --impure"])
def test_an_entry_that_could_allow_nothing_is_a_mistake(mfm: Mfm, ref: str) -> None:
    result = mfm("op", "nix_app", "--app", "path:.#say", "--allow-flake", ref, "--json")
    assert (result.code, result.error["code"]) == (2, "usage")
    assert not mfm.store.exists()


@pytest.mark.parametrize(
    "options",
    [(), ("--app", "path:.#say", "--program-path", "/nix/store/x"), ("--program-path", "/bin/sh")],
)
def test_an_op_without_one_program_is_a_mistake(mfm: Mfm, options: tuple[str, ...]) -> None:
    result = mfm("op", "nix_app", *options, "--json")
    assert (result.code, result.error["code"]) == (2, "op_config_invalid")


async def test_a_program_that_is_in_the_store_needs_no_nix(mfm: Mfm, flakes: Flakes) -> None:
    good = flakes.root / "good"
    program = (await flakes.resolve(f"git+file://{good}#say")).program_path
    result = mfm(
        *("op", "nix_app", "--program-path", program, "--stdin-json", "7"),
        environ={"MFM_NIX_PROGRAM": "/nonexistent"},
    )
    assert (result.code, json.loads(result.out)) == (0, 7)


def test_the_error_of_a_bad_app_says_why_and_what_to_do(mfm: Mfm) -> None:
    result = mfm(*app("none", "--json"))
    assert result.code == 1
    assert result.error["code"] == "nix_eval_failed"
    assert result.error["details"]["reason"] == "missing_attribute"
    assert "no app and no package of this name" in result.error["message"]


def test_what_nix_says_is_shown_to_who_asks(mfm: Mfm) -> None:
    result = mfm(
        "op", "nix_app", "--app", "path:./none#x", "--allow-flake", "path:.", "--show-stderr"
    )
    assert "error: " in result.err
    assert "not_found" in result.err


def test_a_run_that_is_over_protects_nothing_more(mfm: Mfm) -> None:
    assert mfm(*app("fails")).code == 1
    assert roots(mfm) == []


async def test_a_resume_starts_no_nix_for_what_is_recorded(mfm: Mfm, tmp_path: Path) -> None:
    program, log = counting_nix(tmp_path / "bin")
    counted = {"MFM_NIX_PROGRAM": str(program), "PATH": f"{program.parent}:{os.environ['PATH']}"}
    # Long enough to be killed in, and slept through once more by whoever resumes.
    with mfm.started(*app("nap", "--argv", "4"), environ=counted) as process:
        await until_resolved(mfm)
        process.kill()
    assert log.read_text().count("realise") == 1
    started = len(log.read_text().splitlines())
    (protected,) = roots(mfm)
    assert all(link.readlink().exists() for link in protected.iterdir())
    result = mfm("run", "resume", "last", "--take-over", "--json", environ=counted)
    assert (result.code, result.data["outputs"]) == (0, {"result": 1})
    assert len(log.read_text().splitlines()) == started
    assert roots(mfm) == []


async def test_an_interrupted_run_keeps_its_roots(mfm: Mfm) -> None:
    with mfm.started(*app("nap", "--argv", "1000")) as process:
        await until_resolved(mfm)
        process.send_signal(signal.SIGINT)
        process.communicate()
    assert process.returncode == 130
    assert len(roots(mfm)) == 1
    # Another run's end leaves it alone.
    assert mfm(*app("say")).code == 0
    assert len(roots(mfm)) == 1


def test_the_example_of_the_guide_works(mfm: Mfm, flakes: Flakes) -> None:
    guide = (ROOT / "docs/nix.md").read_text()
    (flake,) = re.findall(r"```nix file=flake.nix\n(.*?)```", guide, flags=re.DOTALL)
    mfm.directory = flakes.git("example", flake.replace("x86_64-linux", SYSTEM))
    (command,) = re.findall(r"^\$ mfm (op nix_app .*)$", guide, flags=re.MULTILINE)
    result = mfm(*command.split())
    assert (result.code, result.out) == (0, '{\n  "hello": "world"\n}\n')
    payload = json.loads(mfm("artifact", "get", facts(mfm)[0]["payload_id"]).out)
    (shown,) = re.findall(r"^\{\"app\".*\}$", guide, flags=re.MULTILINE)
    assert payload.keys() == json.loads(shown).keys()


def test_the_workspace_is_the_nearest_flake_of_the_tree(flakes: Flakes, tmp_path: Path) -> None:
    top = flakes.git("outer", "{ outputs = _: { }; }")
    inner = top / "a/b/c"
    inner.mkdir(parents=True)
    assert workspace_of(inner) == Workspace(str(top), str(top))
    (top / "a/flake.nix").touch()
    assert workspace_of(inner) == Workspace(str(top / "a"), str(top))
    shutil.rmtree(top / ".git")
    assert workspace_of(inner) == Workspace(str(inner), None)
    link = tmp_path / "link"
    link.symlink_to(flakes.root / "good")
    good = str(flakes.root / "good")
    assert workspace_of(link) == Workspace(good, good)
