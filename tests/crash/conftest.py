"""What the crash suites share: a server that forks drivers, and the programs of their plans."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash.counting_server import CountingServer
from tests.crash.rounds import Drivers
from tests.crash.turns import Theatre

# Both read nothing but their arguments and standard input.
PROGRAMS = {
    "filter": "exec cat",
    "press": 'read -r _\nprintf "%s\\n" "$MFM_IDEMPOTENCY_KEY" >> "$1"\necho \'"pressed"\'',
}


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of small programs that need nothing of the host."""
    directory = tmp_path_factory.mktemp("programs")
    busybox = shutil.which("busybox")
    assert busybox is not None
    shutil.copy(busybox, directory / "busybox")
    for applet in ("sh", "cat"):
        (directory / applet).symlink_to("busybox")
    for name, body in PROGRAMS.items():
        script = directory / name
        script.write_text(f"#!{directory}/sh\nPATH={directory}\n{body}\n", encoding="utf-8")
        script.chmod(0o755)
    return directory


# Gone with these tests: others count the processes that they leave.
@pytest.fixture(scope="package")
def drivers(programs: Path) -> Iterator[Drivers]:
    server = Drivers(programs)
    yield server
    server.close()


@pytest.fixture(scope="package")
def theatre(drivers: Drivers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Theatre]:
    """The drivers' server, and one that counts what drivers send."""
    server = CountingServer(tmp_path_factory.mktemp("server") / "journal")
    yield Theatre(drivers, server)
    server.close()
