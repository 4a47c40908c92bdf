"""What a command may load: start-up is held by sets of modules, not by a stopwatch."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
REPORT = """
import json, sys
before = set(sys.modules)
from mfm_ops.cli.main import main
sys.argv = ["mfm", *json.loads(sys.argv[1])]
try:
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
print()
print(json.dumps(sorted(set(sys.modules) - before)))
"""


def loaded_by(tmp_path: Path, *arguments: str) -> set[str]:
    """The modules that a command loads beyond those that Python itself starts with."""
    done = subprocess.run(
        [sys.executable, "-c", REPORT, json.dumps(arguments)],
        cwd=tmp_path,
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


def ours(modules: set[str]) -> set[str]:
    return {name for name in modules if name.partition(".")[0] in ("mfm_ops", "transports")}


def libraries(modules: set[str]) -> set[str]:
    """Third-party packages among `modules`; coverage loads itself where it is measuring."""
    tops = {name.partition(".")[0] for name in modules}
    foreign = tops - sys.stdlib_module_names - {"mfm_ops", "transports", "coverage"}
    return {name for name in foreign if not name.startswith("_")}


def test_the_version_loads_nothing_but_itself(tmp_path: Path) -> None:
    modules = loaded_by(tmp_path, "--version")
    assert ours(modules) == {"mfm_ops", "mfm_ops.cli", "mfm_ops.cli.main"}
    assert libraries(modules) == set()


def test_help_loads_click_and_no_model(tmp_path: Path) -> None:
    modules = loaded_by(tmp_path, "--help")
    # What stands in for a module of pydantic's is not pydantic.
    assert libraries(modules - {"pydantic.plugin._loader"}) == {"click"}
    assert ours(modules) == {
        "mfm_ops",
        "mfm_ops.cli",
        "mfm_ops.cli.main",
        "mfm_ops.cli.plugins",
        "mfm_ops.cli.root",
        "mfm_ops.cli.session",
        "mfm_ops.cli.tree",
    }


def test_keystore_list_loads_what_it_needs_and_no_more(tmp_path: Path) -> None:
    keystores = str(ROOT / "examples" / "keystore")
    modules = loaded_by(tmp_path, "op", "keystore_list", "--keystore", keystores)
    # anyio before 4.12 brings sniffio along.
    assert libraries(modules) - {"sniffio"} == {
        "annotated_types",
        "anyio",
        "apsw",
        "click",
        "orjson",
        "pydantic",
        "pydantic_core",
        "typing_extensions",
        "typing_inspection",
    }
    allowed = ("mfm_ops.machine.", "mfm_ops.runtime.", "mfm_ops.sdk.", "mfm_ops.storage.")
    rest = {name for name in ours(modules) if not name.startswith(allowed)}
    assert {name for name in rest if name.startswith("mfm_ops.ops.")} == {
        "mfm_ops.ops.keystore",
        "mfm_ops.ops.keystore_text",
    }
    transports = {name for name in rest if name.startswith("transports.")} - {"transports.policy"}
    assert all(name.startswith(("transports.keystore", "transports.eip55")) for name in transports)
    assert {name for name in rest if name.startswith("mfm_ops.app.")} == {
        "mfm_ops.app.core",
        "mfm_ops.app.installed",
        "mfm_ops.app.nix_roots",
        "mfm_ops.app.outcome",
        "mfm_ops.app.run_config",
        "mfm_ops.app.signals",
        "mfm_ops.app.workspace",
    }
    # Read only where a configuration file exists, and where a name was misspelt.
    assert modules.isdisjoint({"tomllib", "difflib", "argparse", "ssl.match_hostname"})
    # Only where a name may be another package's; pydantic would search for its plugins with it.
    assert modules.isdisjoint({"importlib.metadata", "email", "zipfile"})


def test_looking_at_runs_loads_no_transport(tmp_path: Path) -> None:
    modules = loaded_by(tmp_path, "run", "list")
    assert {name for name in ours(modules) if name.startswith("transports.")} == {
        "transports.policy"
    }
    assert "psutil" not in modules
    assert "structlog" not in modules
