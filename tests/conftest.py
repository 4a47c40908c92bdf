"""What every test gets: a home of its own, asyncio, and a check that it left no process behind.

Fixtures of one room stand in that room's own conftest.py.
"""

import contextlib
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from hypothesis import HealthCheck, settings

# Program: the Debian package that has it.
REQUIRED_PROGRAMS = {
    "busybox": "busybox-static",
    "bwrap": "bubblewrap",
    "git": "git",
    "nix": "nix-bin",
}
# What the machine's own settings could change in a run of mfm, git, Nix or a terminal program.
FOREIGN_VARIABLES = (
    "CLICOLOR",
    "COLUMNS",
    "FORCE_COLOR",
    "GIT_",
    "MFM_",
    "NIX_",
    "NO_COLOR",
    "XDG_",
)

settings.register_profile("default", max_examples=100, deadline=None)
# The same examples in every run: what fails there fails at the desk too.
settings.register_profile("ci", max_examples=100, deadline=None, derandomize=True, database=None)
settings.register_profile(
    "long", max_examples=5_000, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile(
    os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "default")
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="the long forms of the crash suites")


def pytest_configure(config: pytest.Config) -> None:
    hear_signals()
    missing = sorted(
        package for program, package in REQUIRED_PROGRAMS.items() if shutil.which(program) is None
    )
    if missing:
        raise pytest.UsageError(
            "the tests run real programs that are not on this machine; on Debian and Ubuntu: "
            f"sudo apt-get install --no-install-recommends {' '.join(missing)}"
        )


def hear_signals() -> None:
    """What the tests start hears signals, also where the tests themselves were told not to.

    A shell has its background jobs ignore Ctrl-C, nohup has them ignore SIGHUP, and every program
    hands down to those it starts what is ignored and what is blocked.
    """
    for number in (signal.SIGCHLD, signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def long_form(request: pytest.FixtureRequest) -> bool:
    """Whether the long form of a suite was asked for (`make crash`)."""
    return bool(request.config.getoption("--long"))


@pytest.fixture(autouse=True)
def isolated_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the operator's own stores, settings or git configuration."""
    for name in list(os.environ):
        if name.startswith(FOREIGN_VARIABLES):
            monkeypatch.delenv(name)
    # Not made: a program that wants one of these has to cope with a fresh account.
    home = tmp_path / "home"
    for name, value in {
        "HOME": home,
        "XDG_CACHE_HOME": home / ".cache",
        "XDG_CONFIG_HOME": home / ".config",
        "XDG_DATA_HOME": home / ".local/share",
        "XDG_RUNTIME_DIR": home / ".run",
        "XDG_STATE_HOME": home / ".local/state",
        "GIT_AUTHOR_EMAIL": "tests@example.invalid",
        "GIT_AUTHOR_NAME": "Tests",
        "GIT_COMMITTER_EMAIL": "tests@example.invalid",
        "GIT_COMMITTER_NAME": "Tests",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "LC_ALL": "C.UTF-8",
        "TERM": "dumb",
        "TZ": "UTC",
    }.items():
        monkeypatch.setenv(name, str(value))


def child_pids() -> set[int]:
    """Processes that this one started and has not waited for, whichever thread did.

    Read from /proc: psutil would walk all processes of the machine, after each test.
    """
    pids: set[int] = set()
    for thread in threading.enumerate():
        # A thread may end while it is looked at.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            children = Path(f"/proc/self/task/{thread.native_id}/children").read_text()
            pids.update(int(pid) for pid in children.split())
    return pids


@pytest.fixture(autouse=True)
def no_process_is_left(isolated_environment: None) -> Iterator[None]:
    """A test that leaves a child process running fails, and the child is killed."""
    before = child_pids()
    yield
    left = child_pids() - before
    if not left:
        return
    processes = []
    for pid in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            if process.status() != psutil.STATUS_ZOMBIE:
                processes.append(process)
    # One that is already on its way out is not left behind, however slow the machine.
    _, alive = psutil.wait_procs(processes, timeout=10)
    names = []
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            names.append(f"{process.pid} {process.name()}")
            for descendant in process.children(recursive=True):
                descendant.kill()
            process.kill()
    if names:
        pytest.fail(f"the test left processes behind: {', '.join(names)}", pytrace=False)
