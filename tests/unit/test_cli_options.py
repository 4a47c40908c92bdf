"""From a config model to options and back: what a new op gets for nothing."""

from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from mfm_ops.cli.options import config_from_options, options_for
from mfm_ops.machine.canonical import canonical_json_bytes
from mfm_ops.machine.errors import SettingsFailure
from mfm_ops.machine.ids import OpId
from mfm_ops.machine.wire import JsonValue
from mfm_ops.sdk.operation import JsonOption, OpConfig, Operation, PathOption


class Mood(Enum):
    GOOD = "good"
    BAD = 2


class Window(BaseModel):
    first: int
    last: int = 9


class EverythingConfig(OpConfig):
    name: str = Field(description="Who.", examples=["ann"])
    count: int = Field(default=3, ge=1, description="How many.")
    dry: bool = Field(default=False, description="Only look.")
    colour: Literal["red", "green"] = Field(default="red", description="Which.")
    level: Literal[1, 2, "all"] | None = Field(default=None, description="Texts and numbers.")
    mood: Mood = Field(default=Mood.GOOD, description="One of a kind.")
    tags: tuple[str, ...] = Field(default=(), description="Repeat it.")
    words: list[str] = Field(default_factory=list, description="Repeat it too.")
    labels: dict[str, str] = Field(default_factory=dict, description="Pairs.")
    payload: Annotated[JsonValue, JsonOption()] = Field(default=None, description="Any JSON.")
    numbers: list[int] = Field(default_factory=list, description="JSON, having no simple text.")
    pair: tuple[str, int] = Field(default=("a", 1), description="No list of texts.")
    moods: tuple[Mood, ...] = Field(default=(Mood.BAD,), description="Some of a kind.")
    window: Window = Field(default=Window(first=1), description="Has fields of its own.")
    place: Annotated[str | None, PathOption()] = Field(default=None, description="A path.")
    limit: int | None = Field(default=None, description="At most.")
    share: int | None = Field(default=None, gt=-1, le=100, description="In percent.")
    run_key: str | None = Field(default=None, description="mfm has an option of this name.")


class Everything(Operation[EverythingConfig]):
    op_id = OpId("everything")
    op_version = "1"
    summary = "Takes all there is."
    config_model = EverythingConfig


RESERVED = frozenset({"--run-key"})
CWD = Path("/somewhere/dir")
OPTIONS = options_for(Everything(), RESERVED)


def parse(*arguments: str) -> EverythingConfig:
    """The config that a command line comes to."""
    seen: dict[str, Any] = {}
    command = click.Command(
        "everything", params=options_for(Everything(), RESERVED), callback=seen.update
    )
    command.main(list(arguments), standalone_mode=False)
    config = config_from_options(Everything(), seen, CWD, RESERVED)
    assert isinstance(config, EverythingConfig)
    return config


def refusal(*arguments: str) -> Mapping[str, Any]:
    with pytest.raises(SettingsFailure, match="op_config_invalid") as failure:
        parse(*arguments)
    details = failure.value.info.details
    assert isinstance(details, dict)
    assert details["op_id"] == "everything"
    return details


def test_a_choice_is_written_as_its_value_whatever_that_is() -> None:
    config = parse("--name", "x", "--level", "2", "--mood", "good")
    assert (config.level, config.mood) == (2, Mood.GOOD)
    assert parse("--name", "x", "--level", "all", "--mood", "2").mood is Mood.BAD
    assert refusal("--name", "x", "--level", "3")["pointer"] == "/level"
    assert refusal("--name", "x", "--mood", "GOOD")["reason"].startswith("--mood: ")
    lines = [option.get_help_record(click.Context(click.Command("x"))) for option in OPTIONS]
    assert ("--level [1|2|all]", "Texts and numbers.") in lines
    assert ("--mood [good|2]", "One of a kind. [default: good]") in lines


def test_what_is_not_given_is_left_to_the_model() -> None:
    assert parse("--name", "x") == EverythingConfig(name="x")


def test_every_kind_of_field_has_its_way_of_being_written() -> None:
    config = parse(
        *("--name", "x", "--count", "7", "--dry", "--colour", "green"),
        *("--tags", "a", "--tags", "b", "--words", "c", "--labels", "k=v=w", "--labels", "l="),
        *("--payload", '{"a": [1]}', "--numbers", "[1, 2]", "--place", "sub/../file"),
        *("--pair", '["b", 2]', "--moods", '["good"]', "--window", '{"first": 3}'),
        *("--limit", "-4", "--op-run-key", "own"),
    )
    assert config == EverythingConfig(
        name="x",
        count=7,
        dry=True,
        colour="green",
        tags=("a", "b"),
        words=["c"],
        labels={"k": "v=w", "l": ""},
        payload={"a": [1]},
        numbers=[1, 2],
        pair=("b", 2),
        moods=(Mood.GOOD,),
        window=Window(first=3),
        place="/somewhere/dir/file",
        limit=-4,
        run_key="own",
    )


def test_a_flag_can_be_turned_off() -> None:
    assert parse("--name", "x", "--no-dry").dry is False


def test_help_shows_description_example_default_and_what_is_required() -> None:
    command = click.Command("everything", params=options_for(Everything(), RESERVED))
    text = " ".join(CliRunner().invoke(command, ["--help"]).output.split())
    for part in (
        "--name TEXT Who. Example: ann. [required]",
        "--count INTEGER How many. [default: 3]",
        "--dry / --no-dry Only look. [default: no]",
        "--colour [red|green] Which. [default: red]",
        "--labels K=V Pairs.",
        "--payload JSON|@FILE|- Any JSON.",
        "--numbers JSON|@FILE|-",
        '--pair JSON|@FILE|- No list of texts. [default: ["a", 1]]',
        "--moods JSON|@FILE|- Some of a kind. [default: [2]]",
        '--window JSON|@FILE|- Has fields of its own. [default: {"first": 1, "last": 9}]',
        "--place PATH A path.",
        "--op-run-key TEXT",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("option", "text", "must_be"),
    [
        ("--count", "0", "at least 1"),
        ("--count", "many", "at least 1"),
        ("--limit", "1.5", "of any size"),
        ("--share", "-1", "from 0 to 100"),
        ("--share", "101", "from 0 to 100"),
    ],
)
def test_a_number_out_of_range_is_refused_with_the_range(
    option: str, text: str, must_be: str
) -> None:
    reason = refusal("--name", "x", option, text)["reason"]
    assert reason == f"{option}: must be a whole number {must_be}"


@pytest.mark.parametrize(
    ("arguments", "pointer", "reason"),
    [
        ((), "/name", "--name: is required"),
        (("--count", "x"), "/count", "--count: "),
        (("--count", "0"), "/count", "--count: "),
        (("--count", "1.5"), "/count", "--count: "),
        (("--colour", "blue"), "/colour", "--colour: "),
        (("--labels", "x"), "/labels", "--labels: must be written as KEY=VALUE"),
        (("--labels", "a=1", "--labels", "a=2"), "/labels", "--labels: names one key twice"),
        (("--payload", "{"), "/payload", "--payload: "),
        (("--payload", "1e3"), "/payload", "--payload: "),
        (("--payload", "@/no/such/file"), "/payload", "--payload: the file cannot be read: No"),
        (("--payload", "@/a\0b"), "/payload", "--payload: the file cannot be read"),
        (("--numbers", '["x"]'), "/numbers/0", "--numbers: "),
        (("--window", "{}"), "/window/first", "--window: Field required"),
        (("--op-run-key", "x", "--limit", "y"), "/limit", "--limit: "),
    ],
)
def test_a_refusal_names_option_and_place(
    arguments: tuple[str, ...], pointer: str, reason: str
) -> None:
    given_name = ("--name", "x") if arguments else ()
    details = refusal(*given_name, *arguments)
    assert details["pointer"] == pointer
    assert details["reason"].startswith(reason)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=10,
    )
)
def test_json_written_as_text_arrives_as_it_is(value: Any) -> None:
    text = canonical_json_bytes(value).decode()
    assert parse("--name", "x", "--payload", text).payload == value
