"""Settings of any kind, in files, variables and options: read, or refused by a documented code."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from mfm_ops.machine.codes import CATALOGUE
from mfm_ops.machine.errors import SettingsFailure
from mfm_ops.settings.keys import KEYS
from mfm_ops.settings.layers import CONFIG_NAME, load_settings
from tests.fuzz.mutations import STRANGE_TEXTS, broken_bytes, examples, outcome

_GOOD = b"""\
[store]
path = "store.sqlite"
[exec]
allow_prefixes = ["/nix/store", "/usr/bin"]
sandbox = "required"
network = false
max_memory_bytes = 1000000000
[log]
level = "info"
[provenance]
env_allowlist = ["LANG"]
"""
_VALUES = st.one_of(
    STRANGE_TEXTS.map(lambda text: text.replace("\0", "").replace("\ud800", "")),
    st.sampled_from(["[]", '["/a"]', "{}", "/nix/store:/usr", "on", "off", "10", "1GiB", "-5"]),
)


def _read(environ: dict[str, str], directory: Path, options: dict[str, str]) -> None:
    environ = {"HOME": str(directory), **environ}
    read = outcome(lambda: load_settings(environ, directory, options), SettingsFailure)
    if isinstance(read, SettingsFailure):
        assert read.info.code in CATALOGUE
        assert read.info.details


@examples(150)
@given(data=st.one_of(st.binary(max_size=60), broken_bytes(_GOOD)))
def test_a_file_is_read_or_refused_by_a_code(tmp_path: Path, data: bytes) -> None:
    (tmp_path / CONFIG_NAME).write_bytes(data)
    _read({}, tmp_path, {})
    _read({"MFM_CONFIG": str(tmp_path / CONFIG_NAME)}, tmp_path, {})


@examples(150)
@given(name=st.sampled_from(sorted(KEYS)), value=_VALUES)
def test_a_variable_or_option_is_read_or_refused_by_a_code(
    tmp_path: Path, name: str, value: str
) -> None:
    _read({KEYS[name].variable: value}, tmp_path, {})
    _read({}, tmp_path, {name: value})


@examples(100)
@given(name=st.sampled_from(sorted(KEYS)), value=_VALUES, nested=st.booleans())
def test_a_key_of_another_type_is_refused_by_a_code(
    tmp_path: Path, name: str, value: str, nested: bool
) -> None:
    room, _, key = name.partition(".")
    literal = "[[1]]" if nested else "'''" + value.replace("'", "") + "'''"
    (tmp_path / CONFIG_NAME).write_text(f"[{room}]\n{key} = {literal}\n", encoding="utf-8")
    _read({"MFM_CONFIG": str(tmp_path / CONFIG_NAME)}, tmp_path, {})
