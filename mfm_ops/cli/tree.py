"""Commands and groups of mfm: global options anywhere, modules loaded when they are chosen.

What a command does stands in its own module; which ones there are, in `root`.
"""

import importlib
from collections.abc import Callable, Mapping
from typing import Any

import click

from mfm_ops.cli.session import Session

__all__ = ["MfmCommand", "MfmGroup", "command"]


def _keep(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
    """Hand a global option to the session; the one closest to the command is read last."""
    if value is not None:
        ctx.ensure_object(Session).options[str(param.name)] = value
    return value


def _global_options(*, hidden: bool) -> list[click.Parameter]:
    def option(*names: str, **attributes: Any) -> click.Option:
        return click.Option(
            names, callback=_keep, expose_value=False, hidden=hidden, default=None, **attributes
        )

    formats = click.Choice(["text", "json"])
    levels = click.Choice(["debug", "info", "warning", "error"])
    return [
        option("--store", metavar="FILE", help="The store's file [MFM_STORE]."),
        option("--config", metavar="FILE", help="A trusted mfm.toml [MFM_CONFIG]."),
        option(
            "--output-format",
            type=formats,
            is_eager=True,
            help="How to print on standard output [MFM_OUTPUT_FORMAT].",
        ),
        option(
            "--json",
            "output_format",
            flag_value="json",
            is_eager=True,
            help="Short for --output-format json.",
        ),
        option("--log-level", type=levels, help="What to log on standard error [MFM_LOG_LEVEL]."),
        option("--log-format", type=formats, help="How to log [MFM_LOG_FORMAT]."),
    ]


class MfmCommand(click.Command):
    """A command that takes the global options too; only the root lists them in its help."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The command's own, then the global ones whose names it leaves free."""
        own = super().get_params(ctx)
        taken = {name for param in own for name in param.opts}
        return own + [
            option
            for option in _global_options(hidden=ctx.parent is not None)
            if taken.isdisjoint(option.opts)
        ]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does; the session is told which command it is, for hints."""
        ctx.ensure_object(Session).command_path = ctx.command_path
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """As click does, after the session was told that it begins."""
        if not isinstance(self, click.Group):
            ctx.ensure_object(Session).begin()
        return super().invoke(ctx)


class MfmGroup(MfmCommand, click.Group):
    """Commands by name; `lazy` maps a name to `module:attribute` and its one line of help."""

    def __init__(
        self, *args: Any, lazy: Mapping[str, tuple[str, str]] | None = None, **attributes: Any
    ) -> None:
        super().__init__(*args, **attributes)
        self.lazy = dict(lazy or {})

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """In the order in which they were written down; those of modules of their own come last."""
        return [*self.commands, *self.lazy]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, its module imported now."""
        if cmd_name not in self.lazy:
            return super().get_command(ctx, cmd_name)
        module, _, attribute = self.lazy[cmd_name][0].partition(":")
        found = getattr(importlib.import_module(module), attribute)
        assert isinstance(found, click.Command)
        return found

    def line_about(self, ctx: click.Context, name: str) -> str:
        """One line about a command, without importing what the table describes."""
        if name in self.lazy:
            return self.lazy[name][1]
        found = self.get_command(ctx, name)
        return "" if found is None else found.get_short_help_str(limit=200)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, with a suggestion for a misspelt name."""
        name = args[0]
        if not name.startswith("-") and self.get_command(ctx, name) is None:
            from mfm_ops.cli.errors import did_you_mean, usage

            raise usage(
                f"There is no command {name!r}{did_you_mean(name, self.list_commands(ctx))}",
                hint=f"`{ctx.command_path} --help` shows the commands.",
            )
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands for the help."""
        rows = [(name, self.line_about(ctx, name)) for name in self.list_commands(ctx)]
        if rows:
            with formatter.section("Commands"):
                formatter.write_dl(rows)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[Any]:
        """Names and options that begin with `incomplete`; imports no command."""
        from click.shell_completion import CompletionItem

        named = [
            CompletionItem(name, help=self.line_about(ctx, name))
            for name in self.list_commands(ctx)
            if name.startswith(incomplete)
        ]
        return [*named, *click.Command.shell_complete(self, ctx, incomplete)]


def command(
    group: MfmGroup, name: str, *params: click.Parameter
) -> Callable[[Callable[..., Any]], MfmCommand]:
    """Register a function as the command `name` of `group`; its docstring is the help."""

    def register(function: Callable[..., Any]) -> MfmCommand:
        made = MfmCommand(
            name,
            callback=click.pass_obj(function),
            params=list(params),
            help=function.__doc__,
        )
        group.add_command(made)
        return made

    return register
