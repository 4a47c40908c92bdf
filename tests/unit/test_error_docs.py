"""docs/errors.md says of every code what the catalogue says."""

from pathlib import Path

from mfm_ops.machine.codes import CATALOGUE

DOCUMENT = Path(__file__).parents[2] / "docs" / "errors.md"


def documented() -> dict[str, list[str]]:
    """Each row of the document's tables, by its code."""
    rows = {}
    for line in DOCUMENT.read_text(encoding="utf-8").splitlines():
        if line.startswith("| `"):
            cells = [cell.strip().replace("\\|", "|") for cell in line.strip("|").split(" | ")]
            code = cells[0].strip("`")
            assert code not in rows, f"{code} stands there twice"
            rows[code] = cells[1:]
    return rows


def test_every_code_has_its_row_and_no_other_has() -> None:
    assert documented().keys() == CATALOGUE.keys()


def test_each_row_says_what_the_catalogue_says() -> None:
    rows = documented()
    for code, row in CATALOGUE.items():
        assert rows[code] == [
            row.variant,
            row.category.value,
            "yes" if row.retryable else "no",
            ", ".join(sorted(row.safe_details)) or "none",
            row.hint,
        ], code
