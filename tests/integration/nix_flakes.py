"""Small flakes that real Nix builds without nixpkgs and without internet, and a site to use them.

A builder is the static shell that the build sandbox shows as `/bin/sh`, which has its applets
built in; so an app is a copy of that shell, or a script for it.
"""

import os
import shutil
import subprocess
import uuid
from collections.abc import Mapping
from pathlib import Path

import pytest

from mfm_ops.machine.codes import CATALOGUE
from mfm_ops.machine.errors import TransportFailure
from transports.nix_commands import nix_system
from transports.nix_refs import Workspace, parse_app_ref
from transports.nix_resolver import NixSite, Resolution, Resolver
from transports.policy import NixPolicy

NIX_CONFIG = """
build-users-group =
sandbox = true
sandbox-fallback = false
sandbox-paths = /bin/sh=/bin/busybox
substituters =
download-attempts = 1
connect-timeout = 5
"""
SYSTEM = nix_system(os.uname().sysname, os.uname().machine)

# `say` answers with what it reads, `env` with a variable, `nap` sleeps first.
GOOD = """
{
  outputs = { self }:
    let
      build = name: body: derivation {
        inherit name;
        system = "@system@";
        builder = "/bin/sh";
        args = [ "-c" body ];
      };
      tools = build "tools-1.0" ''
        mkdir -p $out/bin
        cp /bin/sh $out/bin/busybox
        script() {
          printf '#!%s/bin/busybox sh\\n%s\\n' $out "$2" > $out/bin/$1
          chmod +x $out/bin/$1
        }
        script say 'exec ${"$"}{0%/*}/busybox cat'
        script env 'echo "\\"$SECRET_OF_HOST\\""'
        script nap '${"$"}{0%/*}/busybox sleep $1; echo 1'
        script fails 'exit 3'
        script talks 'echo hello'
        ln -s say $out/bin/linked
        echo text > $out/bin/text
        ln -s /bin/busybox $out/bin/leaves
        ln -s nowhere $out/bin/dangling
      '';
      app = name: { type = "app"; program = "${tools}/bin/${name}"; };
    in
    {
      apps.@system@ = {
        say = app "say";
        env = app "env";
        nap = app "nap";
        fails = app "fails";
        talks = app "talks";
        linked = app "linked";
        own-source = { type = "app"; program = "${self}/run"; };
      };
      packages.@system@ = {
        say = throw "an app goes before a package";
        by-name = tools // { name = "say-1.0"; };
        by-pname = tools // { pname = "say"; };
        by-main-program = tools // { pname = "x"; meta.mainProgram = "say"; };
        default = tools // { pname = "say"; };
      };
      legacyPackages.@system@.by-legacy = tools // { pname = "say"; };
    };
}
"""


class Flakes:
    """Flakes below `root`, and an environment in which Nix has nothing but them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.home = root / "home"
        self.home.mkdir(parents=True)
        self.environ = {
            "HOME": str(self.home),
            "PATH": os.environ["PATH"],
            "NIX_CONFIG": NIX_CONFIG,
        }

    def git(self, name: str, flake: str, **files: str) -> Path:
        """A git tree, everything committed."""
        directory = self.plain(name, flake, **files)
        self.run_git(directory, "init", "-q")
        self.commit(directory)
        return directory

    def plain(self, name: str, flake: str, **files: str) -> Path:
        """A directory that git knows nothing of."""
        directory = self.root / name
        directory.mkdir(parents=True)
        for file, text in {"flake.nix": flake, **files}.items():
            path = directory / file
            path.write_text(text.replace("@system@", SYSTEM))
            path.chmod(0o755)
        return directory

    def commit(self, directory: Path) -> str:
        """Commit what is there; the revision."""
        self.run_git(directory, "add", "-A")
        self.run_git(directory, "commit", "-q", "--allow-empty", "-m", "x")
        return self.run_git(directory, "rev-parse", "HEAD").strip()

    def run_git(self, directory: Path, *arguments: str) -> str:
        identity = ("-c", "user.name=Tests", "-c", "user.email=tests@example.invalid")
        return subprocess.run(
            ["git", *identity, *arguments],
            cwd=directory,
            env=self.environ,
            check=True,
            capture_output=True,
            text=True,
        ).stdout

    def site(
        self,
        *,
        policy: NixPolicy | None = None,
        roots: Path | None = None,
        workspace: Workspace | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> NixSite:
        return NixSite(
            policy=policy or NixPolicy(),
            environ={**self.environ, **(environ or {})},
            roots=None if roots is None else str(roots),
            workspace=workspace,
        )

    async def resolve(
        self, app: str, site: NixSite | None = None, *, timeout_ms: int = 120_000
    ) -> Resolution:
        resolver = Resolver(site or self.site())
        return await resolver.resolve(parse_app_ref(app), run="run", timeout_ms=timeout_ms)

    async def failure(
        self, app: str, site: NixSite | None = None, *, timeout_ms: int = 120_000
    ) -> tuple[str, str]:
        """Code and reason of a resolution that fails; the error keeps nothing but safe details."""
        with pytest.raises(TransportFailure) as caught:
            await self.resolve(app, site, timeout_ms=timeout_ms)
        info = caught.value.info
        assert set(info.details) <= CATALOGUE[info.code].safe_details
        assert str(self.root) not in info.model_dump_json()
        return str(info.code), info.details["reason"]


def counting_nix(directory: Path) -> tuple[Path, Path]:
    """A `nix` that notes each start before it becomes the real one; and where it notes them."""
    directory.mkdir(parents=True)
    log = directory / "log"
    log.touch()
    for name in ("nix", "nix-store"):
        real = shutil.which(name)
        assert real is not None
        script = directory / name
        script.write_text(f'#!/bin/sh\necho {name} "$@" | head -1 >> {log}\nexec {real} "$@"\n')
        script.chmod(0o755)
    return directory / "nix", log


def marker() -> str:
    """A text that no other process of this host has on its command line."""
    return f"marker-{uuid.uuid4().hex}"


def processes_with(text: str) -> list[int]:
    """The processes whose command line holds `text`, the dead that nobody reaped left out."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            command = (path / "cmdline").read_bytes()
        except OSError:
            continue
        if text.encode() in command:
            found.append(int(path.name))
    return found
