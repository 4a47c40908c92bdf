"""`mfm completion SHELL`: the script that lets a shell complete mfm's commands and options."""

from __future__ import annotations

import click

from mfm_ops.cli.root import COMPLETE_VARIABLE, root
from mfm_ops.cli.session import Session
from mfm_ops.cli.tree import MfmCommand

__all__ = ["completion"]

_EPILOG = """\b
Load it with:
  bash  eval "$(mfm completion bash)"
  zsh   eval "$(mfm completion zsh)"
  fish  mfm completion fish | source"""


def _print(session: Session, shell: str) -> None:
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    assert found is not None
    script = found(root, {}, "mfm", COMPLETE_VARIABLE).source()
    session.show({"shell": shell, "script": script}, script)


completion = MfmCommand(
    "completion",
    callback=click.pass_obj(_print),
    params=[click.Argument(["shell"], metavar="SHELL", type=click.Choice(["bash", "zsh", "fish"]))],
    help="Print the script that completes mfm's commands in a shell.",
    epilog=_EPILOG,
)
