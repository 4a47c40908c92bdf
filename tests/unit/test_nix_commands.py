"""The commands and their environment: what they always say, and what they never get."""

import pytest

from transports import nix_commands
from transports.nix_commands import nix_environment, nix_system

HOSTILE = 'x" --option sandbox false ${builtins.abort "y"}'


def test_no_command_of_nix_looks_up_aliases_or_lets_a_flake_configure_it() -> None:
    for command in (
        nix_commands.metadata("path:/x"),
        nix_commands.evaluate("path:/x", "a", "x86_64-linux"),
        nix_commands.path_info("/nix/store/x"),
    ):
        text = " ".join(command.arguments)
        for option in ("use-registries", "accept-flake-config", "allow-import-from-derivation"):
            assert f"--option {option} false" in text
        assert "--option pure-eval true" in text
        assert "--impure" not in text


def test_what_comes_from_a_ref_is_an_argument_of_its_own() -> None:
    command = nix_commands.evaluate(HOSTILE, HOSTILE, "s")
    assert command.arguments.count(HOSTILE) == 2
    rest = [argument for argument in command.arguments if argument != HOSTILE]
    assert not any("sandbox" in argument for argument in rest)


def test_the_lock_is_never_written() -> None:
    assert "--no-update-lock-file" in nix_commands.metadata("path:/x").arguments


def test_a_root_is_made_in_the_same_step_as_what_it_protects() -> None:
    arguments = nix_commands.realise(("/nix/store/x.drv!out",), "/srv/roots/a").arguments
    assert arguments == (
        *("--realise", "/nix/store/x.drv!out"),
        *("--add-root", "/srv/roots/a", "--indirect"),
    )
    assert "--add-root" not in nix_commands.realise(("/nix/store/x",), None).arguments


def test_only_builds_may_write_without_bound() -> None:
    assert not nix_commands.realise(("/nix/store/x",), None).whole_stderr
    assert nix_commands.metadata("path:/x").whole_stderr


def test_the_environment_is_made_of_what_nix_needs_and_of_nothing_else() -> None:
    host = {
        "HOME": "/home/x",
        "NIX_CONFIG": "substituters =",
        "NIX_SSL_CERT_FILE": "/etc/ssl/x",
        "NIX_PATH": "nixpkgs=/evil",
        "LD_PRELOAD": "/evil.so",
        "GIT_SSH_COMMAND": "evil",
        "LC_ALL": "de_DE",
        "API_KEY": "secret",
    }
    made = nix_environment(host)
    kept = {name: made[name] for name in host if name in made}
    assert kept == {
        "HOME": "/home/x",
        "NIX_CONFIG": "substituters =",
        "NIX_SSL_CERT_FILE": "/etc/ssl/x",
        "LC_ALL": "C.UTF-8",
    }
    assert made["GIT_TERMINAL_PROMPT"] == "0"


def test_git_runs_nothing_that_a_repository_names() -> None:
    made = nix_environment({})
    pairs = {
        made[f"GIT_CONFIG_KEY_{n}"]: made[f"GIT_CONFIG_VALUE_{n}"]
        for n in range(int(made["GIT_CONFIG_COUNT"]))
    }
    assert pairs["core.fsmonitor"] == "false"
    assert pairs["core.hooksPath"] == "/dev/null"


@pytest.mark.parametrize(
    ("sysname", "machine", "system"),
    [
        ("Linux", "x86_64", "x86_64-linux"),
        ("Linux", "aarch64", "aarch64-linux"),
        ("Darwin", "arm64", "aarch64-darwin"),
    ],
)
def test_a_host_has_the_name_that_nix_gives_it(sysname: str, machine: str, system: str) -> None:
    assert nix_system(sysname, machine) == system
