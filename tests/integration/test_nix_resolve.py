"""Resolving with real Nix: what a good flake comes to, and each way in which one can be bad."""

# The tests look at small local files while the loop waits for them anyway; ASYNC110: the event to
# wait for happens in another process.
# ruff: noqa: ASYNC110, ASYNC220, ASYNC221, ASYNC240

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import anyio
import psutil
import pytest

from mfm_ops.app.nix_site import workspace_of
from mfm_ops.machine.errors import TransportFailure
from tests.integration.mfm_process import ROOT
from tests.integration.nix_flakes import (
    GOOD,
    NIX_CONFIG,
    SYSTEM,
    Flakes,
    counting_nix,
    marker,
    processes_with,
)
from transports.nix_refs import Workspace, parse_app_ref
from transports.nix_resolver import Resolver
from transports.policy import NixPolicy

pytestmark = pytest.mark.anyio

OTHER = "aarch64-linux" if SYSTEM.startswith("x86_64") else "x86_64-linux"

BAD = """
{
  nixConfig = { sandbox = false; allow-import-from-derivation = true; post-build-hook = "/evil"; };
  outputs = { self }:
    let
      build = name: body: derivation {
        inherit name;
        system = "@system@";
        builder = "/bin/sh";
        args = [ "-c" body ];
      };
      tools = build "bad-tools-1.0" ''
        mkdir -p $out/bin/directory
        echo text > $out/bin/text
        ln -s /bin/busybox $out/bin/leaves
        ln -s nowhere $out/bin/dangling
        echo text > $out/bin/run
        chmod +x $out/bin/run
      '';
      # Only what a build is given can be a reference of its output.
      links = name: path: "${build name "mkdir $out; ln -s ${path}/bin/run $out/run"}/run";
      app = program: { type = "app"; inherit program; };
      foreign = derivation { name = "x"; system = "@other@"; builder = "/bin/sh"; args = [ ]; };
      fixed = derivation {
        name = "fixed";
        system = "@system@";
        builder = "/bin/sh";
        args = [ "-c" "echo hi > $out" ];
        outputHash = "sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
        outputHashAlgo = "sha256";
        outputHashMode = "flat";
      };
      part = builtins.concatStringsSep "" (builtins.genList (_: "0123456789") 1024);
    in
    {
      packages.@system@ = {
        climbs = tools // { meta.mainProgram = "../../../../bin/echo"; };
        text = "text";
      };
      apps.@system@ = {
        outside = app "/bin/echo";
        empty = app "";
        traversal = app "${tools}/../../../bin/echo";
        source-traversal = app "${self}/../../../bin/echo";
        dots = app "${tools}/./bin/text";
        discarded = app (builtins.unsafeDiscardStringContext "${tools}/bin/text");
        derivation = app "${tools.drvPath}";
        missing = app "${tools}/bin/none";
        dangling = app "${tools}/bin/dangling";
        text = app "${tools}/bin/text";
        directory = app "${tools}/bin/directory";
        refers = app (links "refers" "${tools}");
        unreferred = app (links "unreferred" (builtins.unsafeDiscardStringContext "${tools}"));
        leaves = app "${tools}/bin/leaves";
        not-app = { type = "application"; program = "${tools}/bin/text"; };
        no-type = { program = "${tools}/bin/text"; };
        number = app 1;
        path = app ./flake.nix;
        set = app tools;
        nothing = null;
        throws = throw "boom";
        huge = throw (builtins.concatStringsSep "" (builtins.genList (_: part) 1024));
        ifd = app "${import (build "ifd" "echo '\\"x\\"' > $out")}";
        impure = app (builtins.readFile "/etc/passwd");
        unhashed = app "${builtins.fetchTarball "https://127.0.0.1:9/x.tar.gz"}/x";
        fetches = app "${builtins.fetchTarball {
          url = "https://127.0.0.1:9/x.tar.gz";
          sha256 = "sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
        }}/x";
        endless = let x = x; in app x;
        deep = let f = x: 1 + f (x + 1); in app (f 0);
        fails = app "${build "fails" "echo no; exit 1"}/x";
        full = app "${build "full" "echo No space left on device >&2; exit 1"}/x";
        foreign = app "${foreign}/x";
        fixed = app "${fixed}/x";
      };
    };
}
"""


@pytest.fixture(scope="module")
def flakes(tmp_path_factory: pytest.TempPathFactory) -> Flakes:
    found = Flakes(tmp_path_factory.mktemp("flakes"))
    found.git("good", GOOD, run="#!/bin/sh\n")
    found.git("bad", BAD.replace("@other@", OTHER))
    return found


def ref(flakes: Flakes, name: str, app: str) -> str:
    return f"git+file://{flakes.root / name}#{app}"


# What a good flake comes to.


async def test_a_resolution_pins_all_that_there_is_to_pin(flakes: Flakes) -> None:
    directory = flakes.root / "good"
    revision = flakes.run_git(directory, "rev-parse", "HEAD").strip()
    found = await flakes.resolve(ref(flakes, "good", "say"))
    assert found.program_path == f"{found.store_path}/bin/say"
    assert found.app == ref(flakes, "good", "say")
    assert found.rev == revision
    assert f"rev={revision}" in found.url
    assert (found.kind, found.pinned, found.system) == ("app", True, SYSTEM)
    query = ["nix-store", "--query", "--deriver", found.store_path]
    told = subprocess.run(query, env=flakes.environ, check=True, capture_output=True, text=True)
    assert told.stdout.strip() == found.deriver
    assert found.store_nar_hash.startswith("sha256-")
    assert found.nar_hash is not None
    assert found.nar_hash.startswith("sha256-")
    version = subprocess.run(["nix", "--version"], check=True, capture_output=True, text=True)
    assert version.stdout.split()[-1] == found.nix_version
    assert json.dumps(found.to_json())


@pytest.mark.parametrize("app", ["by-name", "by-pname", "by-main-program", "by-legacy", "default"])
async def test_a_package_is_run_as_nix_run_would(flakes: Flakes, app: str) -> None:
    found = await flakes.resolve(ref(flakes, "good", app))
    assert (found.kind, found.program_path) == ("package", f"{found.store_path}/bin/say")


async def test_a_program_may_lie_in_the_flakes_own_source(flakes: Flakes) -> None:
    found = await flakes.resolve(ref(flakes, "good", "own-source"))
    assert found.program_path.endswith("-source/run")
    assert found.deriver is None


async def test_a_directory_without_git_is_pinned_by_its_contents(flakes: Flakes) -> None:
    directory = flakes.plain("plain", GOOD)
    found = await flakes.resolve(f"path:{directory}#say")
    assert (found.rev, found.pinned) == (None, True)
    assert "narHash=" in found.url


@pytest.mark.parametrize("scheme", ["file", "tarball+file"])
async def test_an_archive_is_pinned_by_its_contents(flakes: Flakes, scheme: str) -> None:
    directory = flakes.plain(f"packed-{scheme}", GOOD)
    archive = shutil.make_archive(str(directory), "gztar", flakes.root, directory.name)
    found = await flakes.resolve(f"{scheme}://{archive}#say")
    assert (found.rev, found.pinned, found.kind) == (None, True, "app")
    assert found.url.startswith(f"file://{archive}?narHash=")


@pytest.mark.parametrize("contents", [b"", b"text", b"\x1f\x8b\x08\x00"])
async def test_an_archive_that_is_none_is_said_to_be_none(flakes: Flakes, contents: bytes) -> None:
    archive = flakes.root / f"broken{len(contents)}.tar.gz"
    archive.write_bytes(contents)
    assert await flakes.failure(f"file://{archive}#say") == ("nix_eval_failed", "bad_archive")
    assert await flakes.failure(f"file://{archive}x.tar.gz#x") == ("nix_eval_failed", "not_found")


async def test_what_is_named_by_revision_stays_what_it_was(flakes: Flakes) -> None:
    directory = flakes.git("moving", GOOD)
    first = flakes.run_git(directory, "rev-parse", "HEAD").strip()
    (directory / "flake.nix").write_text("{ outputs = _: { }; }")
    flakes.commit(directory)
    found = await flakes.resolve(f"git+file://{directory}?rev={first}#say")
    assert found.rev == first
    assert await flakes.failure(f"git+file://{directory}#say") == (
        "nix_eval_failed",
        "missing_attribute",
    )


# The workspace.


async def test_the_workspace_is_asked_of_git(flakes: Flakes) -> None:
    directory = flakes.git("work space", GOOD)
    top = str(directory)
    found = await flakes.resolve("path:.#say", flakes.site(workspace=Workspace(top, top)))
    assert found.rev == flakes.run_git(directory, "rev-parse", "HEAD").strip()
    assert "git+file:" in found.url


@pytest.mark.parametrize("name", ["a b", "a+b", "a#b?c%20", "ü"])
async def test_a_tree_of_any_name_is_asked_anew(flakes: Flakes, name: str) -> None:
    directory = flakes.git(f"named {name}", GOOD)
    site = flakes.site(workspace=workspace_of(directory))
    await flakes.resolve("path:.#say", site)
    below = flakes.plain(f"named {name}/{name}/below", GOOD)
    site = flakes.site(workspace=workspace_of(below))
    revision = flakes.commit(directory)
    assert (await flakes.resolve("path:.#say", site)).rev == revision


async def test_a_bare_repository_is_asked_anew(flakes: Flakes) -> None:
    origin = flakes.git("pushed", GOOD)
    bare = flakes.root / "bare.git"
    flakes.run_git(flakes.root, "clone", "-q", "--bare", str(origin), str(bare))
    await flakes.resolve(f"git+file://{bare}#say")
    revision = flakes.commit(origin)
    flakes.run_git(origin, "push", "-q", str(bare), "HEAD")
    assert (await flakes.resolve(f"git+file://{bare}#say")).rev == revision


async def test_a_workspace_that_the_manifest_calls_dirty_is_dirty(flakes: Flakes) -> None:
    directory = flakes.git("spaced out", GOOD)
    (directory / "flake.nix").write_text("{ outputs = _: { }; }")
    site = flakes.site(workspace=workspace_of(directory))
    with pytest.raises(TransportFailure) as caught:
        await Resolver(site).resolve(
            parse_app_ref("path:.#say"), run="run", timeout_ms=120_000, dirty=True
        )
    assert caught.value.info.details == {"reason": "dirty"}


async def test_a_flake_may_lie_below_the_top_of_its_tree(flakes: Flakes) -> None:
    directory = flakes.git("outer", "{ outputs = _: { }; }")
    inner = flakes.plain("outer/inner/flake", GOOD)
    flakes.commit(directory)
    site = flakes.site(workspace=Workspace(str(inner), str(directory)))
    assert (await flakes.resolve("path:.#say", site)).rev is not None
    site = flakes.site(workspace=Workspace(str(directory), str(directory)))
    assert (await flakes.resolve("path:./inner/flake#say", site)).rev is not None


async def test_a_shallow_clone_is_a_workspace_as_any_other(flakes: Flakes) -> None:
    origin = flakes.git("origin", GOOD)
    flakes.commit(origin)
    flakes.run_git(flakes.root, "clone", "-q", "--depth", "1", f"file://{origin}", "shallow")
    workspace = workspace_of(flakes.root / "shallow")
    assert workspace.shallow
    found = await flakes.resolve("path:.#say", flakes.site(workspace=workspace))
    assert found.rev == flakes.run_git(origin, "rev-parse", "HEAD").strip()


async def test_an_entrys_directory_is_where_its_flake_lies(flakes: Flakes) -> None:
    directory = flakes.git("parted", "{ outputs = _: { }; }")
    flakes.plain("parted/inner/flake", GOOD)
    flakes.commit(directory)
    found = await flakes.resolve(f"git+file://{directory}?dir=inner/flake#say")
    assert "dir=inner" in found.url


async def test_a_link_in_the_workspace_leads_nowhere_else(flakes: Flakes) -> None:
    directory = flakes.git("linking", GOOD)
    (directory / "link").symlink_to(flakes.root / "bad")
    site = flakes.site(workspace=Workspace(str(directory), None))
    assert await flakes.failure("path:./link#say", site) == (
        "nix_app_not_allowed",
        "outside_workspace",
    )


async def test_the_workspace_must_stand_where_the_manifest_says(flakes: Flakes) -> None:
    top = str(flakes.root / "good")
    for workspace in (Workspace(top, top), Workspace(top, None)):
        resolver = Resolver(flakes.site(workspace=workspace))
        with pytest.raises(TransportFailure) as caught:
            await resolver.resolve(
                parse_app_ref("path:.#say"), run="run", timeout_ms=120_000, commit="0" * 40
            )
        assert caught.value.info.details == {"reason": "workspace_changed"}


# Policy.


async def test_a_dirty_tree_is_refused_and_where_it_is_allowed_not_called_pinned(
    flakes: Flakes,
) -> None:
    directory = flakes.git("dirty", GOOD)
    (directory / "flake.nix").write_text(GOOD.replace("@system@", SYSTEM) + "# more\n")
    app = f"git+file://{directory}#say"
    assert await flakes.failure(app) == ("nix_app_not_allowed", "dirty")
    found = await flakes.resolve(app, flakes.site(policy=NixPolicy(allow_dirty=True)))
    assert (found.pinned, found.rev) == (False, None)
    assert found.url.startswith("path:/nix/store/")


async def test_a_site_may_demand_a_revision(flakes: Flakes) -> None:
    site = flakes.site(policy=NixPolicy(allow_dirty=True, require_locked_rev=True))
    directory = flakes.plain("unversioned", GOOD)
    assert await flakes.failure(f"path:{directory}#say", site) == (
        "nix_app_not_allowed",
        "no_locked_rev",
    )
    assert (await flakes.resolve(ref(flakes, "good", "say"), site)).rev is not None


# Bad flakes.


@pytest.mark.parametrize(
    ("app", "reason"),
    [
        ("none", "missing_attribute"),
        ("not-app", "not_an_app"),
        ("no-type", "not_an_app"),
        ("nothing", "not_an_app"),
        ("number", "program_type"),
        ("path", "program_type"),
        ("set", "program_type"),
        ("outside", "program_outside_store"),
        ("empty", "program_not_normal"),
        ("traversal", "program_not_normal"),
        ("source-traversal", "program_not_normal"),
        ("climbs", "program_not_normal"),
        ("dots", "program_not_normal"),
        ("discarded", "context_missing"),
        ("throws", "eval_error"),
        ("ifd", "import_from_derivation"),
        ("impure", "impure"),
        ("unhashed", "impure"),
        ("fetches", "fetch_failed"),
        ("endless", "recursion"),
        ("deep", "recursion"),
    ],
)
async def test_an_app_that_is_none_is_refused_before_anything_is_built(
    flakes: Flakes, app: str, reason: str
) -> None:
    assert await flakes.failure(ref(flakes, "bad", app)) == ("nix_eval_failed", reason)


@pytest.mark.parametrize(
    ("app", "reason"),
    [
        ("fails", "builder_failed"),
        ("full", "builder_failed"),
        ("foreign", "wrong_system"),
        ("fixed", "build_hash_mismatch"),
        ("derivation", "context_wrong"),
        ("missing", "program_missing"),
        ("dangling", "program_missing"),
        ("text", "program_not_executable"),
        ("directory", "program_not_executable"),
        ("leaves", "program_leaves_store"),
    ],
)
async def test_what_was_built_is_looked_at(flakes: Flakes, app: str, reason: str) -> None:
    assert await flakes.failure(ref(flakes, "bad", app)) == ("nix_build_failed", reason)


async def test_a_link_may_lead_to_what_its_store_path_refers_to(flakes: Flakes) -> None:
    found = await flakes.resolve(ref(flakes, "bad", "refers"))
    assert Path(found.program_path).resolve().parent.parent != Path(found.store_path)
    assert await flakes.failure(ref(flakes, "bad", "unreferred")) == (
        "nix_build_failed",
        "context_wrong",
    )


async def test_an_error_of_ten_megabytes_ends_the_command(flakes: Flakes) -> None:
    assert await flakes.failure(ref(flakes, "bad", "huge")) == ("nix_stderr_too_large", "evaluate")


@pytest.mark.parametrize(
    ("flake", "reason"),
    [
        ("{ outputs = { self }: { ; }", "syntax_error"),
        ('{ inputs.x.url = "path:/nowhere"; outputs = _: { }; }', "not_found"),
        ('{ inputs.x.url = "nixpkgs"; outputs = _: { }; }', "indirect_input"),
        ("{ }", "not_a_flake"),
        ("1", "eval_error"),
    ],
)
async def test_a_flake_that_is_none_says_why(
    flakes: Flakes, tmp_path: Path, flake: str, reason: str
) -> None:
    (tmp_path / "flake.nix").write_text(flake)
    assert await flakes.failure(f"path:{tmp_path}#x") == ("nix_eval_failed", reason)


async def test_an_input_must_be_locked_and_no_lock_is_written(
    flakes: Flakes, tmp_path: Path
) -> None:
    good = flakes.root / "good"
    text = (
        f'{{ inputs.x.url = "git+file://{good}"; outputs = {{ self, x }}: {{ apps = x.apps; }}; }}'
    )
    (tmp_path / "flake.nix").write_text(text)
    app = f"path:{tmp_path}#say"
    assert await flakes.failure(app) == ("nix_eval_failed", "lock_incomplete")
    assert [path.name for path in tmp_path.glob("flake*")] == ["flake.nix"]
    flags = ("--extra-experimental-features", "nix-command flakes")
    subprocess.run(
        ["nix", *flags, "flake", "lock", f"path:{tmp_path}"], env=flakes.environ, check=True
    )
    assert (await flakes.resolve(app)).kind == "app"
    lock = tmp_path / "flake.lock"
    lock.write_text(re.sub(r'"sha256-[^"]*"', f'"sha256-{"A" * 43}="', lock.read_text()))
    before = lock.read_bytes()
    assert await flakes.failure(app) == ("nix_eval_failed", "hash_mismatch")
    assert lock.read_bytes() == before


@pytest.mark.parametrize(
    ("app", "reason"),
    [
        ("path:{root}/nowhere#x", "not_found"),
        ("path:{root}/home#x", "not_a_flake"),
        ("git+file://{root}/nowhere#x", "not_found"),
        ("git+file://{root}/good?ref=none#x", "rev_not_found"),
        (f"git+file://{{root}}/good?rev={'0' * 40}#x", "rev_not_found"),
        ("github:owner/repo#x", "fetch_failed"),
        ("git+https://127.0.0.1:9/x#x", "fetch_failed"),
        ("https://127.0.0.1:9/x.tar.gz#x", "fetch_failed"),
    ],
)
async def test_what_cannot_be_fetched_says_so_at_once(
    flakes: Flakes, app: str, reason: str
) -> None:
    assert await flakes.failure(app.format(root=flakes.root)) == ("nix_eval_failed", reason)


async def test_a_flake_that_git_does_not_track_is_none(flakes: Flakes) -> None:
    directory = flakes.git("untracked", GOOD)
    flakes.run_git(directory, "rm", "-q", "--cached", "flake.nix")
    flakes.run_git(directory, "commit", "-q", "-m", "x")
    assert await flakes.failure(f"git+file://{directory}#x") == ("nix_eval_failed", "not_a_flake")


async def test_an_alias_of_the_registry_is_not_looked_up(flakes: Flakes) -> None:
    registry = flakes.home / ".config/nix/registry.json"
    registry.parent.mkdir(parents=True)
    alias = {
        "from": {"type": "indirect", "id": "alias"},
        "to": {"type": "path", "path": str(flakes.root / "good")},
    }
    registry.write_text(json.dumps({"version": 2, "flakes": [alias]}))
    directory = flakes.plain(
        "aliased", '{ inputs.x.url = "alias"; outputs = { self, x }: { apps = x.apps; }; }'
    )
    assert await flakes.failure(f"path:{directory}#say") == ("nix_eval_failed", "indirect_input")


async def test_a_repository_runs_nothing_of_its_own(flakes: Flakes, tmp_path: Path) -> None:
    directory = flakes.git("hooked", GOOD)
    trace = tmp_path / "trace"
    monitor = tmp_path / "monitor"
    monitor.write_text(f"#!/bin/sh\ntouch {trace}\n")
    monitor.chmod(0o755)
    flakes.run_git(directory, "config", "core.fsmonitor", str(monitor))
    await flakes.resolve(f"git+file://{directory}#say")
    assert not trace.exists()


async def test_a_repository_fetches_what_it_lacks_by_no_command(
    flakes: Flakes, tmp_path: Path
) -> None:
    directory = flakes.git("partial", f"{GOOD}# of a revision that Nix has not seen\n")
    trace = tmp_path / "trace"
    for key, value in (
        ("extensions.partialClone", "origin"),
        ("remote.origin.url", f"ext::touch {trace}"),
        ("remote.origin.promisor", "true"),
        ("protocol.ext.allow", "always"),
    ):
        flakes.run_git(directory, "config", key, value)
    blob = flakes.run_git(directory, "rev-parse", "HEAD:flake.nix").strip()
    (directory / ".git" / "objects" / blob[:2] / blob[2:]).unlink()
    code, _ = await flakes.failure(f"git+file://{directory}?ref=master#say")
    assert (code, trace.exists()) == ("nix_eval_failed", False)


async def test_a_repository_of_somebody_else_is_not_trusted(flakes: Flakes, tmp_path: Path) -> None:
    git = tmp_path / "git"
    # git's own way to be tested on what only root could set up.
    git.write_text(
        f'#!/bin/sh\nexport GIT_TEST_ASSUME_DIFFERENT_OWNER=1\nexec {shutil.which("git")} "$@"\n'
    )
    git.chmod(0o755)
    site = flakes.site(environ={"PATH": f"{tmp_path}:{os.environ['PATH']}"})
    assert await flakes.failure(ref(flakes, "good", "say"), site) == (
        "nix_eval_failed",
        "git_owner",
    )


# Nix itself.


@pytest.mark.parametrize(
    ("environ", "reason"),
    [
        ({"PATH": "/nonexistent"}, "missing"),
        ({"NIX_REMOTE": "daemon", "NIX_STATE_DIR": "/nonexistent"}, "daemon"),
        ({"NIX_CONFIG": "nonsense"}, "configuration"),
    ],
)
async def test_a_nix_that_cannot_be_used_says_why(
    flakes: Flakes, environ: dict[str, str], reason: str
) -> None:
    site = flakes.site(environ=environ)
    assert await flakes.failure(ref(flakes, "good", "say"), site) == ("nix_unavailable", reason)


async def test_a_home_where_nothing_can_be_made_is_named(flakes: Flakes) -> None:
    site = flakes.site(environ={"HOME": "/proc/none"})
    assert await flakes.failure(ref(flakes, "good", "say"), site) == (
        "nix_unavailable",
        "cache_directory",
    )


async def test_a_program_that_is_no_nix_says_so(flakes: Flakes, tmp_path: Path) -> None:
    text = tmp_path / "nix"
    text.write_text("no program")
    text.chmod(0o755)
    site = flakes.site(policy=NixPolicy(program=str(text)))
    assert await flakes.failure(ref(flakes, "good", "say"), site) == (
        "nix_unavailable",
        "not_started",
    )
    site = flakes.site(policy=NixPolicy(program="/bin/echo"))
    assert (await flakes.failure(ref(flakes, "good", "say"), site))[0] == "nix_stdout_invalid_json"


async def test_a_nix_that_crashes_is_told_from_one_that_refuses(
    flakes: Flakes, tmp_path: Path
) -> None:
    program = tmp_path / "nix"
    program.write_text("#!/bin/sh\nkill -ABRT $$\n")
    program.chmod(0o755)
    site = flakes.site(policy=NixPolicy(program=str(program)))
    assert await flakes.failure(ref(flakes, "good", "say"), site) == ("nix_eval_failed", "crashed")


# Two at once.


async def test_two_who_ask_for_the_same_share_one_set_of_commands(
    flakes: Flakes, tmp_path: Path
) -> None:
    program, log = counting_nix(tmp_path / "bin")
    site = flakes.site(policy=NixPolicy(program=str(program)), roots=tmp_path / "roots")
    resolver = Resolver(site)
    app = parse_app_ref(ref(flakes, "good", "say"))
    found = []

    async def ask() -> None:
        found.append(await resolver.resolve(app, run="run", timeout_ms=120_000))

    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(ask)
    assert found[0] == found[1] == found[2]
    assert len(log.read_text().splitlines()) == 4


async def test_one_who_gives_up_does_not_take_the_others_along(
    flakes: Flakes, tmp_path: Path
) -> None:
    resolver = Resolver(flakes.site(roots=tmp_path / "roots"))
    app = parse_app_ref(ref(flakes, "good", "say"))
    outcomes: list[str] = []

    async def ask(timeout_ms: int) -> None:
        try:
            await resolver.resolve(app, run="run", timeout_ms=timeout_ms)
        except TransportFailure as failed:
            outcomes.append(str(failed.info.code))
        else:
            outcomes.append("found")

    async with anyio.create_task_group() as group:
        group.start_soon(ask, 1)
        group.start_soon(ask, 120_000)
    assert sorted(outcomes) == ["found", "nix_timeout"]


# Nothing is left.

SLOW = """
{
  outputs = _: {
    apps.@system@.x = {
      type = "app";
      program = "${derivation {
        name = "slow";
        system = "@system@";
        builder = "/bin/sh";
        args = [ "-c" "sleep 1000; : @marker@" "@marker@" ];
      }}/x";
    };
  };
}
"""


def slow(directory: Path) -> tuple[str, str]:
    """An app whose build sleeps, and what is on the command line of its builder alone."""
    mark = marker()
    text = SLOW.replace("@system@", SYSTEM).replace("@marker@", mark)
    (directory / "flake.nix").write_text(text)
    return f"path:{directory}#x", mark


async def until_built(mark: str) -> None:
    with anyio.fail_after(120):
        while not processes_with(mark):
            await anyio.sleep(0.01)


async def until_gone(mark: str) -> None:
    with anyio.fail_after(120):
        while processes_with(mark):
            await anyio.sleep(0.01)


async def test_a_deadline_stops_nix_and_its_builders(flakes: Flakes, tmp_path: Path) -> None:
    app, mark = slow(tmp_path)
    # The first may be up on a slow machine before Nix begins to build.
    for timeout_ms in (1_500, 6_000, 24_000):
        code, during = await flakes.failure(app, timeout_ms=timeout_ms)
        assert code == "nix_timeout"
        if during == "realise":
            break
    assert during == "realise"
    assert processes_with(mark) == []
    assert processes_with(str(tmp_path)) == []


async def test_nixs_own_limit_on_builds_is_told_from_ours(flakes: Flakes, tmp_path: Path) -> None:
    app, mark = slow(tmp_path)
    site = flakes.site(environ={"NIX_CONFIG": f"{NIX_CONFIG}timeout = 1\n"})
    assert await flakes.failure(app, site) == ("nix_build_failed", "build_timeout")
    assert processes_with(mark) == []


async def test_a_cancelled_call_stops_nix_and_its_builders(flakes: Flakes, tmp_path: Path) -> None:
    app, mark = slow(tmp_path)
    async with anyio.create_task_group() as group:
        group.start_soon(flakes.resolve, app)
        await until_built(mark)
        group.cancel_scope.cancel()
    assert processes_with(mark) == []
    assert processes_with(str(tmp_path)) == []


async def test_a_nix_that_does_not_listen_is_killed_with_its_builders(
    flakes: Flakes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transports.nix_process._GRACE_S", 0.2)
    app, mark = slow(tmp_path)
    async with anyio.create_task_group() as group:
        group.start_soon(flakes.resolve, app)
        await until_built(mark)
        ours = {child.pid for child in psutil.Process().children(recursive=True)}
        (realising,) = ours.intersection(processes_with("--realise"))
        # Stopped, it cannot answer to anything but SIGKILL.
        os.kill(realising, signal.SIGSTOP)
        group.cancel_scope.cancel()
    assert processes_with(mark) == []


CHILD = """
import asyncio, sys
from pathlib import Path
from tests.integration.nix_flakes import Flakes
flakes = Flakes(Path(sys.argv[1]))
asyncio.run(flakes.resolve(sys.argv[2]))
"""


async def test_when_mfm_is_killed_nix_and_its_builders_end(tmp_path: Path) -> None:
    app, mark = slow(tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, str(tmp_path / "site"), app],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as child:
        await until_built(mark)
        child.kill()
    await until_gone(mark)


# What is protected from the garbage collector.


async def test_a_run_protects_what_it_resolved(flakes: Flakes, tmp_path: Path) -> None:
    roots = tmp_path / "roots"
    text = GOOD.replace("tools-1.0", f"tools-{marker()}")
    directory = flakes.plain(tmp_path.name, text)
    app = parse_app_ref(f"path:{directory}#say")
    resolver = Resolver(flakes.site(roots=roots))
    found = await resolver.resolve(app, run="first", timeout_ms=120_000)
    await resolver.resolve(app, run="second", timeout_ms=120_000)

    def delete() -> bool:
        command = ["nix-store", "--delete", found.store_path]
        done = subprocess.run(command, env=flakes.environ, check=False, capture_output=True)
        return done.returncode == 0

    assert not delete()
    for root in (roots / "first").iterdir():
        root.unlink()
    assert not delete()
    for root in (roots / "second").iterdir():
        root.unlink()
    assert delete()


async def test_who_joins_from_another_run_shares_the_commands_and_holds_their_root(
    flakes: Flakes, tmp_path: Path
) -> None:
    roots = tmp_path / "roots"
    program, log = counting_nix(tmp_path / "bin")
    resolver = Resolver(flakes.site(policy=NixPolicy(program=str(program)), roots=roots))
    app = parse_app_ref(ref(flakes, "good", "say"))
    async with anyio.create_task_group() as group:
        for run in ("first", "second"):
            group.start_soon(lambda run: resolver.resolve(app, run=run, timeout_ms=120_000), run)
    assert len(log.read_text().splitlines()) == 4
    (root,) = (roots / "first").iterdir()
    (held,) = (roots / "second").iterdir()
    assert held.readlink() == root
    # Asking again by itself, it gets a root of its own.
    await resolver.resolve(app, run="second", timeout_ms=120_000)
    assert held.readlink() == root.readlink()


async def test_where_no_root_can_be_made_nothing_is_resolved(
    flakes: Flakes, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    site = flakes.site(roots=tmp_path / "file" / "roots")
    assert await flakes.failure(ref(flakes, "good", "say"), site) == (
        "nix_unavailable",
        "root_failed",
    )
