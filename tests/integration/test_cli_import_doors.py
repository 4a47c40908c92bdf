"""What `mfm run import` is given that has no end, or that somebody else imports just now."""

import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.integration.mfm_process import COMMAND, Mfm


@pytest.fixture
def mfm(tmp_path: Path) -> Mfm:
    return Mfm(tmp_path)


def test_a_device_without_an_end_is_refused_by_its_beginning(mfm: Mfm) -> None:
    result = mfm("run", "import", "/dev/zero", "--json")
    assert (result.code, result.error["code"]) == (3, "export_not_mfm")


def test_a_pipe_without_an_end_is_refused_by_its_beginning(mfm: Mfm) -> None:
    with subprocess.Popen(["yes"], stdout=subprocess.PIPE) as endless:
        done = subprocess.run(
            [*COMMAND, "run", "import", "-"],
            env=mfm.environ,
            cwd=mfm.directory,
            stdin=endless.stdout,
            capture_output=True,
            timeout=120,
            check=False,
        )
        endless.kill()
    assert done.returncode == 3
    assert done.stderr.startswith(b"error[export_not_mfm]")


def test_who_imports_the_same_at_the_same_time_finds_it_there(mfm: Mfm) -> None:
    mfm(*mfm.program("echo", "1"))
    mfm("run", "export", "last", "-o", "run.tar")
    elsewhere = {"MFM_STORE": str(mfm.directory / "elsewhere.sqlite")}
    with ExitStack() as stack:
        imports = [
            stack.enter_context(mfm.started("run", "import", "run.tar", environ=elsewhere))
            for _ in range(4)
        ]
        told = [each.communicate(timeout=50)[0] for each in imports]
        assert [each.returncode for each in imports] == [0] * 4
    assert sum("imported" in each for each in told) == 1
    assert sum("unchanged" in each for each in told) == 3
