"""Logs: on standard error, by level and format, with secrets withheld; structlog only if needed."""

import json
import logging
import subprocess
import sys
from collections.abc import Iterator

import pytest

from mfm_ops.cli.logs import configure


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name in ("mfm_ops", "transports"):
        logging.getLogger(name).setLevel(logging.NOTSET)


def test_a_json_record_is_one_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "json")
    logging.getLogger("mfm_ops.x").info("opened %s", "it", extra={"size": 3})
    record = json.loads(capsys.readouterr().err)
    assert record["event"] == "opened it"
    assert (record["level"], record["logger"], record["size"]) == ("info", "mfm_ops.x", 3)
    assert record["timestamp"].endswith("Z")


def test_records_below_the_level_are_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    configure("warning", "text")
    logging.getLogger("mfm_ops.x").info("quiet")
    logging.getLogger("asyncio").debug("chatter")
    assert capsys.readouterr().err == ""
    logging.getLogger("transports.x").warning("loud")
    assert "loud" in capsys.readouterr().err


def test_configuring_again_replaces_the_handler(capsys: pytest.CaptureFixture[str]) -> None:
    configure("warning", "text")
    configure("warning", "json")
    logging.getLogger("mfm_ops.x").warning("once")
    assert json.loads(capsys.readouterr().err)["event"] == "once"


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_secrets_are_withheld(capsys: pytest.CaptureFixture[str], log_format: str) -> None:
    configure("info", log_format)
    canary = "hunter2" + "Zx81kq"
    log = logging.getLogger("mfm_ops.x")
    log.info("connect with password=%s now", canary)
    log.info("plain", extra={"password": canary, "nested": {"api_key": canary}})
    try:
        raise ValueError(f"password={canary}")
    except ValueError:
        log.exception("broke")
    shown = capsys.readouterr().err
    assert canary not in shown
    assert "plain" in shown
    assert "Traceback" in shown


def test_a_text_record_cannot_command_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "text")
    logging.getLogger("mfm_ops.x").info("label \x1b[31m\nnext")
    shown = capsys.readouterr().err
    assert "\x1b" not in shown
    assert len(shown.splitlines()) == 1


def test_structlog_waits_for_the_first_record() -> None:
    script = (
        "import logging, sys\n"
        "from mfm_ops.cli.logs import configure\n"
        "configure('warning', 'text')\n"
        "log = logging.getLogger('mfm_ops')\n"
        "log.info('not shown')\n"
        "assert 'structlog' not in sys.modules\n"
        "log.warning('shown')\n"
        "assert 'structlog' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, stderr=subprocess.DEVNULL)
