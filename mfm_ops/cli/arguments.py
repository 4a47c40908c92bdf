"""Arguments that name what the store holds, and what a shell offers for them.

Which runs, states and artifacts there are to offer is left to `app.completing`.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final

import click

from mfm_ops.cli.output import escape
from mfm_ops.cli.session import Session

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    # Keeps what is offered from depending on the version of click, where items are generic.
    Items = list[CompletionItem[Any]]
    Question = Callable[[Any, str], Coroutine[Any, Any, list[tuple[str, str]]]]

__all__ = [
    "complete_artifacts",
    "complete_doubtful_states",
    "complete_runs",
    "complete_states",
    "run_argument",
]

_SHOWN_ABOUT: Final = 60


def run_argument() -> click.Argument:
    """RUN, with the store's newest runs as what a shell offers."""
    return click.Argument(["run"], metavar="RUN", shell_complete=complete_runs)


def complete_runs(ctx: click.Context, _param: click.Parameter, incomplete: str) -> Items:
    """The newest runs of the store that the command would use."""
    from mfm_ops.app import completing

    return _offered(ctx, lambda store, _: completing.runs(store, incomplete))


def complete_states(ctx: click.Context, _param: click.Parameter, incomplete: str) -> Items:
    """The states of the run that the command names."""
    from mfm_ops.app import completing

    return _offered(ctx, lambda store, run: completing.states(store, run, incomplete))


def complete_doubtful_states(ctx: click.Context, _param: click.Parameter, incomplete: str) -> Items:
    """The states whose effects are in doubt, of the run that the command names."""
    from mfm_ops.app import completing

    return _offered(ctx, lambda store, run: completing.states_in_doubt(store, run, incomplete))


def complete_artifacts(ctx: click.Context, _param: click.Parameter, incomplete: str) -> Items:
    """Artifacts by the beginning of their ids; without one, those of the newest run."""
    from mfm_ops.app import completing

    return _offered(ctx, lambda store, _: completing.artifacts(store, incomplete))


def _offered(ctx: click.Context, question: Question) -> Items:
    """What the store answers; nothing where it cannot: a shell's prompt is no place for errors."""
    from click.shell_completion import CompletionItem

    session = ctx.ensure_object(Session)
    try:
        answered = session.app.ask(lambda store: question(store, _run_named(ctx)))
    except Exception:  # noqa: BLE001 - whatever it is, the command itself will say it
        return []
    return [CompletionItem(name, help=_short(about)) for name, about in answered]


def _run_named(ctx: click.Context) -> str:
    """The RUN that stands before the next word; "", which no run has, where none does."""
    # An option without its value ends click's parsing, and what came before it is left over.
    return ctx.params.get("run") or next(iter(ctx.args), "")


def _short(text: str) -> str:
    text = escape(text)
    return text if len(text) <= _SHOWN_ABOUT else f"{text[: _SHOWN_ABOUT - 1]}…"
