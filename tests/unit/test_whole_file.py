"""Files that are there whole or not at all, and what is done with those of dead writers.

Writers that are killed are in `tests/crash/test_transfer_kill.py`.
"""

from pathlib import Path

import pytest

from mfm_ops.app.whole_file import whole_file


def names(directory: Path) -> list[str]:
    return sorted(each.name for each in directory.iterdir())


def test_a_file_appears_when_all_is_written(tmp_path: Path) -> None:
    with whole_file(tmp_path / "it", force=False) as stream:
        stream.write(b"all")
        assert "it" not in names(tmp_path)
    assert names(tmp_path) == ["it"]
    assert (tmp_path / "it").read_bytes() == b"all"


def test_nothing_is_left_of_a_file_that_could_not_be_written(tmp_path: Path) -> None:
    def write() -> None:
        with whole_file(tmp_path / "it", force=False) as stream:
            stream.write(b"some")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write()
    assert names(tmp_path) == []


@pytest.mark.parametrize("force", [False, True])
def test_only_force_takes_the_place_of_a_file_that_appeared_meanwhile(
    tmp_path: Path, force: bool
) -> None:
    def write() -> None:
        with whole_file(tmp_path / "it", force=force) as stream:
            stream.write(b"mine")
            (tmp_path / "it").write_bytes(b"theirs")

    if force:
        write()
    else:
        with pytest.raises(FileExistsError):
            write()
    assert names(tmp_path) == ["it"]
    assert (tmp_path / "it").read_bytes() == (b"mine" if force else b"theirs")


def test_what_nobody_writes_any_more_is_removed_and_what_somebody_does_is_not(
    tmp_path: Path,
) -> None:
    abandoned = tmp_path / ".mfm-export-0011223344556677"
    abandoned.write_bytes(b"some")
    (tmp_path / ".mfm-export-elsewhere").symlink_to("/dev/null")
    (tmp_path / ".mfm-export-directory").mkdir()
    with whole_file(tmp_path / "one", force=False):
        with whole_file(tmp_path / "two", force=False):
            assert not abandoned.exists()
            assert len([n for n in names(tmp_path) if n.startswith(".mfm-export-")]) == 4
        assert "two" in names(tmp_path)
    assert names(tmp_path) == [".mfm-export-directory", ".mfm-export-elsewhere", "one", "two"]
