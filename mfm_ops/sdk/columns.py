"""How many columns a text takes on a screen, and how it is made to fit; pure.

For ops that lay out a table themselves, and for the command line, which lays out all others.
"""

__all__ = ["columns", "fitted"]


def columns(text: str) -> int:
    """What `text` takes on a screen: East Asian characters two columns, combining ones none."""
    return len(text) if text.isascii() else sum(map(_columns_of, text))


def fitted(text: str, width: int) -> str:
    """`text` in exactly `width` columns: filled up with blanks, or cut with an ellipsis.

    >>> fitted("mfm", 5), fitted("operations", 5)
    ('mfm  ', 'oper…')
    """
    used = columns(text)
    if used <= width:
        return text + " " * (width - used)
    used = end = 0
    for end, char in enumerate(text):  # noqa: B007 - it is where the text is cut
        taken = columns(char)
        if used + taken > width - 1:
            break
        used += taken
    return text[:end] + "…" + " " * (width - 1 - used)


def _columns_of(char: str) -> int:
    # Only where a text is not ASCII: most never are.
    import unicodedata

    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1
