"""A git that hangs: Ctrl-C ends the command at once, and git with it."""

import os
import signal
import subprocess
import time
from pathlib import Path

from tests.integration.mfm_process import Mfm, a_long_time, processes_with


def test_ctrl_c_leaves_no_git_behind(tmp_path: Path) -> None:
    marker = a_long_time()
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "git").write_text(f"#!/bin/sh\nsleep {marker}\n")
    (programs / "git").chmod(0o755)
    repository = tmp_path / "repository"
    subprocess.run(["git", "init", "--quiet", str(repository)], check=True)
    (repository / "uv.lock").touch()
    mfm = Mfm(repository)
    path = f"{programs}:{os.environ['PATH']}"
    with mfm.started("op", "keystore_list", environ={"PATH": path}) as process:
        deadline = time.monotonic() + 60
        while not processes_with(marker):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        # Both of its questions are asked, and the command waits for nothing else.
        time.sleep(1)
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "error[interrupted]" in err
    # Well under the ten seconds that git has.
    assert time.monotonic() - began < 5
    deadline = time.monotonic() + 10
    while processes_with(marker):
        assert time.monotonic() < deadline
        time.sleep(0.01)
