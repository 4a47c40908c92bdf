"""The commands that resolve an app, and the environment that they get; pure.

Each option stands here with its reason. Nothing of a ref is ever part of an expression or of an
option's value: it is handed over as an argument of its own. Running them is `nix_process`'s.
"""

from collections.abc import Mapping, Sequence
from typing import Final, Literal, NamedTuple

__all__ = [
    "EXPRESSION",
    "NixCommand",
    "Step",
    "evaluate",
    "metadata",
    "nix_environment",
    "nix_system",
    "path_info",
    "realise",
    "requisites",
]

Step = Literal["metadata", "evaluate", "realise", "path_info"]


class NixCommand(NamedTuple):
    """One command. `program` is the name that it is called by: Nix is one file with many names.

    `whole_stderr`: more than a bounded stderr ends it; otherwise only the last of it is kept.
    """

    step: Step
    program: Literal["nix", "nix-store"]
    arguments: tuple[str, ...]
    whole_stderr: bool = True


# What the operator's own nix.conf may say otherwise, and must not here: no alias is looked up, no
# flake configures Nix, and nothing is built before it is known what is asked for.
_GUARDS: Final = (
    *("--extra-experimental-features", "nix-command flakes"),
    *("--option", "use-registries", "false"),
    *("--option", "accept-flake-config", "false"),
    *("--option", "allow-import-from-derivation", "false"),
    *("--option", "pure-eval", "true"),
    *("--option", "warn-dirty", "false"),
)

# As `nix run` looks for an app, but all that a name can mean is decided here: what Nix 2.8 makes of
# several string contexts in its cache is wrong, and an expression is not cached.
EXPRESSION: Final = """
{ ref, name, system }:
let
  flake = builtins.getFlake ref;
  answer = kind: program:
    if builtins.isString program then {
      inherit kind;
      program = builtins.unsafeDiscardStringContext program;
      context = builtins.getContext program;
      version = builtins.nixVersion;
    } else { fault = "program_type"; };
  app = value:
    if (value.type or null) == "app" && value ? program then answer "app" value.program
    else { fault = "not_an_app"; };
  package = value:
    if (value.type or null) != "derivation" then { fault = "not_an_app"; }
    else answer "package" "${value.outPath}/bin/${
      value.meta.mainProgram or value.pname or (builtins.parseDrvName value.name).name
    }";
in {
  resolved =
    if flake ? apps.${system}.${name} then app flake.apps.${system}.${name}
    else if flake ? packages.${system}.${name} then package flake.packages.${system}.${name}
    else if flake ? legacyPackages.${system}.${name} then
      package flake.legacyPackages.${system}.${name}
    else { fault = "missing_attribute"; };
}
"""


def metadata(target: str) -> NixCommand:
    """Which contents `target` has now."""
    # Not `--no-write-lock-file`: a lock that does not fit would be made anew, in memory.
    arguments = ("flake", "metadata", "--json", "--no-update-lock-file")
    # What lies on this host is cheap to look at. Nix 2.8 takes a bare repository, and a tree whose
    # path needs escapes, for a remote one, of which it believes for an hour what it saw last.
    fresh = ("--option", "tarball-ttl", "0") if target.startswith(("git+file:", "file:")) else ()
    return NixCommand("metadata", "nix", (*_GUARDS, *fresh, *arguments, target))


def evaluate(url: str, name: str, system: str) -> NixCommand:
    """What the app `name` is, by the locked flake `url`."""
    given = ("--argstr", "ref", url, "--argstr", "name", name, "--argstr", "system", system)
    arguments = ("eval", "--json", "--expr", EXPRESSION, *given, "resolved")
    return NixCommand("evaluate", "nix", (*_GUARDS, *arguments))


def realise(installables: Sequence[str], root: str | None) -> NixCommand:
    """Build or fetch; `root` is the first name of the links that protect the outcome.

    Builders may write as much as they like to standard error.
    """
    rooted = () if root is None else ("--add-root", root, "--indirect")
    arguments = ("--realise", *installables, *rooted)
    return NixCommand("realise", "nix-store", arguments, whole_stderr=False)


def requisites(store_path: str) -> NixCommand:
    """All that a path refers to, itself and directly or not."""
    return NixCommand("path_info", "nix-store", ("--query", "--requisites", store_path))


def path_info(store_path: str) -> NixCommand:
    """What the store knows of a path."""
    return NixCommand("path_info", "nix", (*_GUARDS, "path-info", "--json", store_path))


_PASSED_ON: Final = frozenset(
    {
        # Where Nix, git and ssh find themselves and their own configuration.
        *("HOME", "PATH", "TMPDIR", "USER"),
        *("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"),
        *("NIX_CONFIG", "NIX_CONF_DIR", "NIX_USER_CONF_FILES", "NIX_REMOTE", "NIX_STATE_DIR"),
        # How this host reaches others, and whom it believes.
        *("NIX_SSL_CERT_FILE", "SSL_CERT_DIR", "SSL_CERT_FILE", "SSH_AUTH_SOCK"),
        *("http_proxy", "https_proxy", "all_proxy", "no_proxy"),
        *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
    }
)

# A repository's configuration can name programs for git to run, and git may start a clean-up that
# outlives it; neither is part of fetching.
_GIT_CONFIG: Final = (
    ("core.fsmonitor", "false"),
    ("core.hooksPath", "/dev/null"),
    ("gc.auto", "0"),
    ("maintenance.auto", "false"),
    # A remote of the form `ext::command`, of which git may fetch objects that are not there.
    ("protocol.ext.allow", "never"),
)


def nix_environment(host: Mapping[str, str]) -> dict[str, str]:
    """The whole environment of a command, of what the host's own has."""
    chosen = {name: host[name] for name in sorted(_PASSED_ON & host.keys())}
    # Messages are read: they must be the ones that were written.
    chosen |= {"LC_ALL": "C.UTF-8", "GIT_TERMINAL_PROMPT": "0"}
    chosen["GIT_CONFIG_COUNT"] = str(len(_GIT_CONFIG))
    for number, (key, value) in enumerate(_GIT_CONFIG):
        chosen[f"GIT_CONFIG_KEY_{number}"] = key
        chosen[f"GIT_CONFIG_VALUE_{number}"] = value
    return chosen


def nix_system(sysname: str, machine: str) -> str:
    """This host as Nix calls it, from what `uname` says.

    >>> nix_system("Linux", "aarch64"), nix_system("Darwin", "arm64")
    ('aarch64-linux', 'aarch64-darwin')
    """
    kernel = sysname.lower()
    return f"{'aarch64' if machine == 'arm64' else machine}-{kernel}"
