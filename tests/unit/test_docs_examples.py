"""The examples of the guides are whole and run: each block is written to the file it names."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
GUIDES = ("writing-an-op.md", "writing-a-transport.md")
BLOCK = re.compile(r"^```python file=(\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def write_out(guide: str, directory: Path) -> list[Path]:
    """Write the guide's Python blocks into `directory`; return them in order."""
    written = []
    for name, source in BLOCK.findall((TOP / "docs" / guide).read_text()):
        path = directory / name
        path.write_text(source)
        written.append(path)
    return written


def run(directory: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        check=False,
        cwd=directory,
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(directory), str(TOP)))},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("guide", GUIDES)
def test_the_example_of_a_guide_passes_the_tests_that_the_guide_gives(
    guide: str, tmp_path: Path
) -> None:
    paths = write_out(guide, tmp_path)
    tests = [str(path) for path in paths if path.name.startswith("test_")]
    assert tests
    assert len(paths) > len(tests)
    output = run(
        tmp_path, "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "--rootdir=.", *tests
    )
    assert "passed" in output


@pytest.mark.parametrize("guide", GUIDES)
def test_every_python_block_of_a_guide_names_its_file(guide: str) -> None:
    text = (TOP / "docs" / guide).read_text()
    assert text.count("```python") == len(BLOCK.findall(text))


def test_the_op_and_the_transport_of_the_guides_work_together(tmp_path: Path) -> None:
    for guide in GUIDES:
        write_out(guide, tmp_path)
    (tmp_path / "short.txt").write_text("one\n")
    (tmp_path / "long.txt").write_text("one\ntwo\n")
    (tmp_path / "together.py").write_text(TOGETHER)
    output = run(tmp_path, "together", str(tmp_path / "short.txt"), str(tmp_path / "long.txt"))
    assert output == f"2 lines in {tmp_path / 'long.txt'}\n"


TOGETHER = """
import asyncio
import sys

from line_report import LineReport, LineReportConfig
from local_text import LocalTextFactory

from mfm_ops.machine.canonical import parse_canonical
from mfm_ops.machine.config import BuildProvenance
from mfm_ops.machine.engine import Stores
from mfm_ops.runtime.context import JsonContext
from mfm_ops.runtime.executor import Engine
from mfm_ops.runtime.router import TransportRegistry
from mfm_ops.sdk.launcher import RunLauncher
from mfm_ops.sdk.pipeline import single_op_pipeline
from mfm_ops.sdk.planner import OpRegistry, build_plan, exports
from mfm_ops.storage.memory import MemoryStore


async def main():
    op, store, build = LineReport(), MemoryStore(), BuildProvenance(env_allowlist=())
    ops = OpRegistry([op])
    engine = Engine(
        registry=TransportRegistry([LocalTextFactory()]),
        build_plan=lambda manifest: build_plan(manifest, ops),
        build=build,
    )
    launcher = RunLauncher(
        registry=ops,
        engine=engine,
        stores=Stores(events=store, artifacts=store),
        make_context=JsonContext,
        build=build,
    )
    config = LineReportConfig(paths=tuple(sys.argv[1:]))
    prepared = launcher.prepare(single_op_pipeline(op, config))
    result = await launcher.launch(prepared)
    snapshot = parse_canonical(await store.get(result.final_snapshot_id))
    print(op.render_text(exports(prepared.manifest, ops, snapshot), 80))


asyncio.run(main())
"""
