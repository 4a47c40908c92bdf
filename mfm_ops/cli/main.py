"""The console script. Answers `--version` at once; everything else is left to `root`."""

import gc
import os
import sys

__all__ = ["main"]


def main() -> None:
    """Run `mfm` with this process's arguments and exit with its code."""
    arguments = sys.argv[1:]
    if arguments == ["--version"]:
        # Before click is imported: that alone would triple the time of this answer.
        from mfm_ops import __version__

        print(f"mfm {__version__}")
        return
    # Imports make objects by the hundred thousand, and they stay: looking through them every 700
    # objects, as is the default, would take a tenth of a short command's time.
    gc.set_threshold(100_000)
    # Other packages' pydantic plugins would be searched for, and would see what mfm validates.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    try:
        from mfm_ops.cli.root import run

        code = run(arguments)
    except KeyboardInterrupt:
        code = 130
    # Nor is there anything to be found in them when the process ends.
    gc.freeze()
    sys.exit(code)


if __name__ == "__main__":
    main()
