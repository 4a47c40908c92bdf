"""From an op's config model to command-line options, and from their texts back to a config.

Whether a value is valid is left to the model; its refusals are reworded to name the option.
"""

from __future__ import annotations

import json
import os
import re
import sys
import types
from collections.abc import Collection, Mapping
from enum import Enum
from pathlib import Path
from typing import Any, Final, Literal, Union, get_args, get_origin

import click
from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from mfm_ops.cli.numbers import range_text
from mfm_ops.cli.session import working_directory
from mfm_ops.machine.canonical import CanonicalError, Json, json_pointer, parse_strict
from mfm_ops.machine.codes import error_info
from mfm_ops.machine.errors import SettingsFailure
from mfm_ops.sdk.operation import AnyOperation, JsonOption, OpConfig, PathOption

__all__ = ["config_from_options", "option_name", "options_for", "read_json"]

MAX_JSON_BYTES: Final = 16 << 20
_INTEGER = re.compile(r"-?[0-9]{1,40}")
_NUMBER_FAULTS: Final = frozenset(
    {
        *("greater_than", "greater_than_equal", "less_than", "less_than_equal"),
        *("int_parsing", "int_parsing_size", "int_type"),
    }
)
"""pydantic's names for what is no number, or one out of range."""


def option_name(field: str, reserved: Collection[str] = ()) -> str:
    """`--timeout-ms` for `timeout_ms`; `--op-…` where mfm has an option of that name."""
    name = "--" + field.replace("_", "-")
    return f"--op-{name[2:]}" if name in reserved else name


def options_for(op: AnyOperation, reserved: Collection[str] = ()) -> list[click.Parameter]:
    """An option for each field of the op's config; `reserved` are names that it cannot have.

    What is the op's own comes before what its config inherits.
    """
    own = op.config_model.__annotations__
    fields = sorted(op.config_model.model_fields.items(), key=lambda item: item[0] not in own)
    return [_option(field, info, reserved) for field, info in fields]


def _option(field: str, info: FieldInfo, reserved: Collection[str]) -> click.Option:
    name = option_name(field, reserved)
    kind = _kind(info)
    attributes: dict[str, Any] = {"default": None, "help": _help(info, kind)}
    names = [name, field]
    if kind == "flag":
        names = [f"{name}/--no-{name[2:]}", field]
    elif kind in ("repeat", "pairs"):
        attributes |= {"multiple": True, "metavar": "K=V" if kind == "pairs" else "TEXT"}
    elif kind == "json":
        attributes["metavar"] = "JSON|@FILE|-"
    elif kind == "choice":
        choices = list(_choices(info))
        attributes["metavar"] = f"[{'|'.join(choices)}]"
        attributes["shell_complete"] = lambda _ctx, _param, incomplete: [
            choice for choice in choices if choice.startswith(incomplete)
        ]
    elif kind == "path":
        attributes |= {"metavar": "PATH", "type": click.Path()}
    else:
        attributes["metavar"] = "INTEGER" if kind == "integer" else "TEXT"
    return click.Option(names, **attributes)


Kind = Literal["flag", "repeat", "pairs", "json", "choice", "path", "integer", "text"]


def _kind(info: FieldInfo) -> Kind:
    """How a field is written on a command line; whatever has no simple text is JSON."""
    marks = [mark if isinstance(mark, type) else type(mark) for mark in info.metadata]
    annotation = _bare(info.annotation)
    origin, arguments = get_origin(annotation), get_args(annotation)
    if JsonOption in marks:
        return "json"
    if PathOption in marks:
        return "path"
    if annotation is bool:
        return "flag"
    if annotation is int:
        return "integer"
    if origin is Literal or (isinstance(annotation, type) and issubclass(annotation, Enum)):
        return "choice"
    if origin in (list, tuple) and arguments and {*map(_bare, arguments)} <= {str, ...}:
        return "repeat"
    if origin in (dict, Mapping) and arguments == (str, str):
        return "pairs"
    return "text" if isinstance(annotation, type) and issubclass(annotation, str) else "json"


def _choices(info: FieldInfo) -> dict[str, Any]:
    """The values of a choice by how they are written: not every one is a text."""
    annotation = _bare(info.annotation)
    if get_origin(annotation) is Literal:
        return {str(value): value for value in get_args(annotation) if value is not None}
    return {str(member.value): member.value for member in annotation}


def _bare(annotation: Any) -> Any:
    """The type itself, without `| None` and `Annotated`."""
    if hasattr(annotation, "__metadata__"):
        return _bare(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        rest = [part for part in get_args(annotation) if part is not type(None)]
        if len(rest) == 1:
            return _bare(rest[0])
    return annotation


def _help(info: FieldInfo, kind: Kind) -> str:
    parts = [info.description or ""]
    if info.examples and kind != "flag":
        parts.append(f"Example: {_shown(info.examples[0])}.")
    if info.is_required():
        parts.append("[required]")
    elif info.default is not None and info.default_factory is None and info.default != ():
        parts.append(f"[default: {_shown(info.default)}]")
    return " ".join(part for part in parts if part)


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Enum):
        return _shown(value.value)
    if isinstance(value, str):
        return value
    # As it would be written: a model within is no text of Python's.
    return json.dumps(to_jsonable_python(value, serialize_unknown=True))


def config_from_options(
    op: AnyOperation,
    values: Mapping[str, Any],
    cwd: Path,
    reserved: Collection[str] = (),
) -> OpConfig:
    """The op's config from what click parsed; an option that was not given is left out.

    Raises:
        SettingsFailure: `op_config_invalid`; the reason begins with the option's name.
    """
    given: dict[str, Json] = {}
    for field, info in op.config_model.model_fields.items():
        value = values.get(field)
        if value is None or value == ():
            continue
        try:
            given[info.alias or field] = _value(info, value, cwd)
        except ValueError as error:
            raise _refusal(op, field, f"/{field}", str(error), reserved) from None
    try:
        return op.config_model.model_validate(given)
    except ValidationError as refused:
        # pydantic's sentence, never its input.
        fault = refused.errors(include_url=False, include_context=False, include_input=False)[0]
        place = fault["loc"]
        pointer, reason = json_pointer(place), fault["msg"].removeprefix("Value error, ")
        if fault["type"] in _NUMBER_FAULTS and len(place) == 1:
            reason = _must_be(op.config_model, str(place[0])) or reason
        elif fault["type"] == "missing" and len(place) == 1:
            reason = "is required"
    raise _refusal(op, str(place[0]) if place else "", pointer, reason, reserved)


def _must_be(model: type[OpConfig], name: str) -> str | None:
    """What the integer field of that alias must be, in the words of mfm's own options."""
    about = model.model_json_schema(by_alias=True)["properties"].get(name, {})
    for part in (about, *about.get("anyOf", ())):
        if part.get("type") == "integer":
            least, above = part.get("minimum"), part.get("exclusiveMinimum")
            most, below = part.get("maximum"), part.get("exclusiveMaximum")
            least = above + 1 if least is None and above is not None else least
            most = below - 1 if most is None and below is not None else most
            return f"must be a whole number {range_text(least, most)}"
    return None


def _refusal(
    op: AnyOperation, field: str, pointer: str, reason: str, reserved: Collection[str]
) -> SettingsFailure:
    by_alias = {info.alias or name: name for name, info in op.config_model.model_fields.items()}
    named = f"{option_name(by_alias[field], reserved)}: " if field in by_alias else ""
    return SettingsFailure(
        error_info(
            "op_config_invalid",
            "The op's configuration is invalid.",
            op_id=str(op.op_id),
            pointer=pointer,
            reason=f"{named}{reason}",
        )
    )


def _value(info: FieldInfo, value: Any, cwd: Path) -> Json:
    kind = _kind(info)
    if kind == "repeat":
        return list(value)
    if kind == "pairs":
        return _pairs(value)
    if kind == "json":
        return _json(value, cwd)
    if kind == "path":
        if not value:
            raise ValueError("must not be empty")
        # Not resolved: a symbolic link is what the user named.
        return os.path.normpath(cwd / str(value))
    if kind == "choice":
        # What is none of them is for the model to refuse.
        chosen: Json = _choices(info).get(value, str(value))
        return chosen
    if kind == "integer" and _INTEGER.fullmatch(value):
        return int(value)
    return str(value) if isinstance(value, str) else bool(value)


def _pairs(items: tuple[str, ...]) -> dict[str, Json]:
    pairs: dict[str, Json] = {}
    for item in items:
        key, separator, text = item.partition("=")
        if not separator or not key:
            raise ValueError("must be written as KEY=VALUE")
        if key in pairs:
            raise ValueError("names one key twice")
        pairs[key] = text
    return pairs


def read_json(option: str, text: str) -> Json:
    """The JSON that an option's text gives: itself, `@FILE` or `-`.

    Raises:
        SettingsFailure: `usage`, naming the option.
    """
    try:
        return _json(text, working_directory())
    except ValueError as error:
        info = error_info("usage", f"{option}: {error}.")
        raise SettingsFailure(info) from None


def _json(text: str, cwd: Path) -> Json:
    if text == "-":
        data = sys.stdin.buffer.read(MAX_JSON_BYTES + 1)
    elif text.startswith("@"):
        try:
            with (cwd / text[1:]).open("rb") as file:
                data = file.read(MAX_JSON_BYTES + 1)
        except (OSError, ValueError) as error:
            detail = getattr(error, "strerror", None) or "not a path"
            raise ValueError(f"the file cannot be read: {detail}") from None
    else:
        data = text.encode("utf-8", "surrogateescape")
    if len(data) > MAX_JSON_BYTES:
        raise ValueError("longer than 16 MiB")
    try:
        return parse_strict(data)
    except CanonicalError as error:
        raise ValueError(str(error)) from None
