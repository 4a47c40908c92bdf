"""pydantic's plugins: none in the command, and no search for them."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PLUGIN = """
raise SystemExit("the plugin was loaded")
"""
SCRIPT = """
import sys
from mfm_ops.cli.plugins import switch_off
switch_off()
from pydantic import BaseModel
class Model(BaseModel):
    number: int
assert Model(number=1).number == 1
"""


def python(folder: Path, script: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": f"{ROOT}:{folder}", **environ},
        capture_output=True,
        text=True,
        check=False,
    )


def install_plugin(folder: Path) -> None:
    """A distribution that names a plugin for pydantic, as packages do."""
    (folder / "nosy.py").write_text(PLUGIN)
    metadata = folder / "nosy-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: nosy\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text("[pydantic]\nnosy = nosy:plugin\n")


def test_no_plugin_is_loaded_and_none_is_searched_for(tmp_path: Path) -> None:
    install_plugin(tmp_path)
    report = "import json; print(json.dumps(sorted(sys.modules)))"
    done = python(tmp_path, SCRIPT + report)
    assert done.returncode == 0, done.stderr
    assert not {"nosy", "importlib.metadata"} & set(json.loads(done.stdout))


def test_whoever_wants_plugins_gets_them(tmp_path: Path) -> None:
    install_plugin(tmp_path)
    done = python(tmp_path, SCRIPT, PYDANTIC_DISABLE_PLUGINS="another")
    assert done.returncode == 1
    assert "the plugin was loaded" in done.stderr


def test_who_looks_for_more_gets_the_real_module(tmp_path: Path) -> None:
    more = """
from pydantic.plugin._loader import PYDANTIC_ENTRY_POINT_GROUP, get_plugins
assert PYDANTIC_ENTRY_POINT_GROUP == "pydantic"
import pydantic.plugin._loader
assert list(pydantic.plugin._loader.get_plugins()) == []
"""
    done = python(tmp_path, SCRIPT + more)
    assert done.returncode == 0, done.stderr
