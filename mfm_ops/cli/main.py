"""The console script. Answers `--version` at once; everything else is left to `root`."""

import gc
import os
import sys
from collections.abc import Callable

__all__ = ["main"]


def main() -> None:
    """Run `mfm` with this process's arguments and exit with its code."""
    _open_closed_streams()
    arguments = sys.argv[1:]
    if arguments == ["--version"]:
        # Before click is imported: that alone would triple the time of this answer.
        from mfm_ops import __version__

        try:
            print(f"mfm {__version__}", flush=True)
        except OSError:
            # What cannot be written is told below, as for every command.
            pass
        else:
            return
    # Imports make objects by the hundred thousand, and they stay: looking through them every 700
    # objects, as is the default, would take a tenth of a short command's time.
    gc.set_threshold(100_000)
    begin = _leave_at_once()
    _hear_of_children()
    try:
        from mfm_ops.cli.plugins import switch_off

        switch_off()
        from mfm_ops.cli.root import run

        code = run(arguments, begin)
    except KeyboardInterrupt:
        code = 130
    # Nor is there anything to be found in them when the process ends.
    gc.freeze()
    sys.exit(code)


def _leave_at_once() -> Callable[[], None]:
    """Let Ctrl-C end the process on the spot, until what is returned is called.

    While modules are loaded an exception from a signal comes up in the middle of other packages'
    imports, which lose it, take it for something else, or crash. Nothing is done so far that would
    have to be cleaned up.
    """
    import signal

    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        # Whoever started mfm has it ignore Ctrl-C.
        return lambda: None

    def leave(_number: int, _frame: object) -> None:
        try:
            os.write(2, b"error[interrupted]: interrupted before anything was done\n")
        finally:
            os._exit(130)

    signal.signal(signal.SIGINT, leave)

    def begin() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)

    return begin


def _hear_of_children() -> None:
    """Let the system keep a child's end until it was asked for.

    Who ignores SIGCHLD hands that on to what it starts, as some entry points of containers do. How
    git, Nix or a program ended would be lost, and bubblewrap would wait for its own child for ever.
    """
    import signal

    if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def _open_closed_streams() -> None:
    """Put something in the place of standard streams that the caller has closed.

    Python has None for them, and the next file that is opened would get their number: what is
    written to a stream would end up in it.
    """
    if sys.stdin is None:
        os.open(os.devnull, os.O_RDONLY)
        sys.stdin = open(0, closefd=False)  # noqa: SIM115 - a descriptor, for good
    if sys.stdout is None:
        # For reading alone, so that writing fails: nobody gets what was asked for.
        os.open(os.devnull, os.O_RDONLY)
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        os.open(os.devnull, os.O_WRONLY)
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115


if __name__ == "__main__":
    main()
