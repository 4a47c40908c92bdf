"""`mfm_ops.ops.keystore`: what it asks for, how it selects, and how the result reads."""

import re
from collections.abc import Sequence
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfm_ops.machine.canonical import Json, artifact_id_for_json
from mfm_ops.machine.errors import ContextFailure, SettingsFailure
from mfm_ops.machine.io import IoProvider
from mfm_ops.machine.meta import SideEffectKind
from mfm_ops.machine.plan import plan_digest
from mfm_ops.machine.recorder import EventRecorder
from mfm_ops.ops.keystore import (
    KeystoreList,
    KeystoreListConfig,
    SortBy,
    select,
    without_addresses,
)
from mfm_ops.ops.keystore_text import MAX_NOTED_WARNINGS
from mfm_ops.sdk.pipeline import parse_config, single_op_pipeline
from mfm_ops.sdk.planner import OpRegistry, build_plan
from tests.unit.sdk_ops import DictContext, manifest_of
from tests.unit.test_op_programs import ScriptedIo

pytestmark = pytest.mark.anyio

OP = KeystoreList()
REGISTRY = OpRegistry([OP])
ADDRESS = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"
WARNING: dict[str, Json] = {
    "file": "notes",
    "reason": "not_json",
    "detail": "The content is not JSON.",
}
SORTS: tuple[SortBy, ...] = ("label", "created", "address")


def entry(file: str = "deployer", **fields: Json) -> dict[str, Json]:
    return {
        "file": file,
        "id": "3198bc9c-6672-5ab3-d995-4942343ae5b6",
        "label": None,
        "address": None,
        "kdf": "scrypt",
        "cipher": "aes-128-ctr",
        "created": None,
    } | fields


# Few letters, so that equal texts are common.
TEXTS = st.none() | st.text("aAbB-é", min_size=1, max_size=3)
TIMES = st.none() | st.builds(
    lambda second, fraction: f"2024-01-02T03:04:0{second}{fraction}Z",
    st.integers(0, 9),
    st.sampled_from(["", ".5", ".678901234"]),
)
ADDRESSES = st.none() | st.sampled_from(
    [ADDRESS, ADDRESS.lower(), "0x" + 40 * "b", "0x" + 40 * "A"]
)
ENTRIES = st.lists(
    st.builds(
        lambda file, label, address, created: entry(
            f"file-{file}", label=label, address=address, created=created
        ),
        st.integers(0, 9999),
        TEXTS,
        ADDRESSES,
        TIMES,
    ),
    max_size=12,
    unique_by=lambda one: str(one["file"]),
)


async def selected(config: KeystoreListConfig, listing: Json) -> dict[str, Json]:
    """What the two states of the op leave in its context for that answer of the transport."""
    plan = build_plan(manifest_of(single_op_pipeline(OP, config)), REGISTRY)
    context = DictContext({})
    for node in plan.graph.states:
        await node.state.handle(context, ScriptedIo(listing), cast(EventRecorder, None))
    prefix = "keystore_list.main."
    return {key.removeprefix(prefix): value for key, value in context.dump().items()}


def listing(*entries: dict[str, Json], **others: Json) -> Json:
    return {"entries": cast(Json, list(entries)), "warnings": [], **others}


def text_of(entries: Sequence[dict[str, Json]], width: int) -> str:
    text = OP.render_text({"keystores": cast(Json, entries)}, width)
    assert text is not None
    return text


@pytest.mark.parametrize("keystore", [None, "examples/keystore", "/abs/keys"])
async def test_the_request_is_the_directory_as_it_was_given(keystore: str | None) -> None:
    plan = build_plan(
        manifest_of(single_op_pipeline(OP, KeystoreListConfig(keystore=keystore))), REGISTRY
    )
    io = ScriptedIo(listing())
    await plan.graph.states[0].state.handle(DictContext({}), io, cast(EventRecorder, None))
    assert [call.model_dump(mode="json") for call in io.calls] == [
        {
            "namespace": "local.keystore",
            "request": {"kind": "list_keystores_v1", "dir": keystore},
            "fact_key": None,
        }
    ]


def test_expanding_gives_the_same_plan_and_manifest_wherever_mfm_stands(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    found = set()
    for _ in range(2):
        place = str(tmp_path_factory.mktemp("place"))
        monkeypatch.chdir(place)
        for name in ("HOME", "MFM_KEYSTORE", "XDG_DATA_HOME"):
            monkeypatch.setenv(name, place)
        manifest = manifest_of(single_op_pipeline(OP, KeystoreListConfig()))
        plan = build_plan(manifest, REGISTRY)
        found.add((artifact_id_for_json(manifest.model_dump(mode="json")), plan_digest(plan)))
    assert len(found) == 1


def test_one_state_reads_and_one_is_pure() -> None:
    plan = build_plan(manifest_of(single_op_pipeline(OP, KeystoreListConfig())), REGISTRY)
    assert [(node.id, node.state.meta().side_effects) for node in plan.graph.states] == [
        ("keystore_list.main.list", SideEffectKind.ReadOnlyIo),
        ("keystore_list.main.select", SideEffectKind.Pure),
    ]
    assert len(plan.graph.edges) == 1


@given(ENTRIES, st.sampled_from(SORTS))
def test_without_a_filter_every_entry_is_there_once(
    entries: list[dict[str, Json]], sort_by: SortBy
) -> None:
    shown = select(entries, None, sort_by)
    assert sorted(str(one["file"]) for one in shown) == sorted(str(one["file"]) for one in entries)


@given(ENTRIES, st.sampled_from(SORTS))
def test_what_lacks_the_sorted_field_comes_last(
    entries: list[dict[str, Json]], sort_by: SortBy
) -> None:
    lacking = [one[sort_by] is None for one in select(entries, None, sort_by)]
    assert lacking == sorted(lacking)


@given(ENTRIES, st.sampled_from(SORTS), st.randoms())
def test_the_order_does_not_depend_on_the_order_before(
    entries: list[dict[str, Json]], sort_by: SortBy, random: Any
) -> None:
    shuffled = list(entries)
    random.shuffle(shuffled)
    assert select(shuffled, None, sort_by) == select(entries, None, sort_by)


@given(ENTRIES, st.sampled_from(SORTS))
def test_equal_values_are_in_order_of_file_names(
    entries: list[dict[str, Json]], sort_by: SortBy
) -> None:
    shown = select([one | {sort_by: None} for one in entries], None, sort_by)
    files = [str(one["file"]) for one in shown]
    assert files == sorted(files)


@given(ENTRIES, TEXTS.filter(bool), st.sampled_from(SORTS))
def test_a_filter_keeps_exactly_the_labels_in_which_it_is_found(
    entries: list[dict[str, Json]], text: str, sort_by: SortBy
) -> None:
    shown = select(entries, re.escape(text), sort_by)
    expected = [one for one in entries if one["label"] is not None and text in str(one["label"])]
    assert shown == select(expected, None, sort_by)


def test_a_filter_is_searched_and_may_be_anchored() -> None:
    entries = [entry(label="prod-eu"), entry(label="non-prod"), entry(label=None)]
    assert len(select(entries, "prod", "label")) == 2
    assert [one["label"] for one in select(entries, "^prod", "label")] == ["prod-eu"]
    assert [one["label"] for one in select(entries, "(?i)PROD$", "label")] == ["non-prod"]


def test_a_pattern_that_matches_nothing_at_all_still_needs_a_label() -> None:
    assert select([entry(label=None)], "", "label") == []


def test_letter_case_does_not_part_labels_that_belong_together() -> None:
    entries = [entry(label=label) for label in ("b", "B", "a", "C")]
    assert [one["label"] for one in select(entries, None, "label")] == ["a", "B", "b", "C"]


def test_a_checksums_capitals_do_not_order_addresses() -> None:
    entries = [entry(address="0x" + 40 * digit) for digit in "bAc"]
    assert [str(one["address"])[2] for one in select(entries, None, "address")] == ["A", "b", "c"]


def test_a_time_comes_before_the_same_time_with_a_fraction() -> None:
    times: Sequence[Json] = ["2024-01-02T03:04:05.5Z", "2024-01-02T03:04:05Z"]
    shown = select([entry(created=time) for time in times], None, "created")
    assert [one["created"] for one in shown] == sorted(times, key=lambda time: len(str(time)))


@given(st.sampled_from([ADDRESS, ADDRESS[2:], ADDRESS.lower(), "0X" + ADDRESS[2:].upper()]))
def test_addresses_that_are_not_shown_are_nowhere(address: str) -> None:
    (shown,) = without_addresses(
        [entry(f"UTC--2024-01-02T03-04-05Z--{address}", label=f"of {address}", address=address)]
    )
    assert "address" not in shown
    assert ADDRESS[2:].lower() not in str(shown).lower()
    assert shown["label"] == "of (address)"


async def test_warnings_name_no_address_either_when_they_are_not_shown() -> None:
    named = WARNING | {"file": f"UTC--2024--{ADDRESS[2:]}"}
    outputs = await selected(KeystoreListConfig(show_addresses=False), listing(warnings=[named]))
    assert outputs["warnings"] == [WARNING | {"file": "UTC--2024--(address)"}]


async def test_the_outputs_are_keystores_warnings_and_hint_and_the_listing_is_gone() -> None:
    outputs = await selected(KeystoreListConfig(), listing(entry(), warnings=[WARNING]))
    assert outputs == {"keystores": [entry()], "warnings": [WARNING], "hint": None}
    assert {*outputs} == {*OP.io().exports}


@pytest.mark.parametrize(
    ("config", "answer", "said"),
    [
        ({}, listing(missing={"dir": "/home/ada/keys"}), "/home/ada/keys does not exist"),
        ({}, listing(missing={"dir": None}), "no default place"),
        ({}, listing(), "holds no keystores"),
        ({}, listing(warnings=[WARNING]), "No file"),
        ({"filter_label": "z"}, listing(entry(label="a")), "without it there are 1 keystores"),
    ],
)
async def test_an_empty_result_says_why(config: dict[str, Any], answer: Json, said: str) -> None:
    outputs = await selected(KeystoreListConfig(**config), answer)
    assert outputs["keystores"] == []
    assert said in str(outputs["hint"])


async def test_a_selection_without_a_listing_is_a_failure() -> None:
    plan = build_plan(manifest_of(single_op_pipeline(OP, KeystoreListConfig())), REGISTRY)
    with pytest.raises(ContextFailure, match="context_missing_key"):
        await plan.graph.states[1].state.handle(
            DictContext({}), cast(IoProvider, None), cast(EventRecorder, None)
        )


@pytest.mark.parametrize(
    ("config", "pointer"),
    [
        ({"keystore": ""}, "/keystore"),
        ({"keystore": 7}, "/keystore"),
        ({"filter_label": "("}, "/filter_label"),
        ({"filter_label": "a{99999999999999999999}"}, "/filter_label"),
        ({"filter_label": "(" * 1000}, "/filter_label"),
        ({"filter_label": "a" * 1001}, "/filter_label"),
        ({"sort_by": "file"}, "/sort_by"),
        ({"show_addresses": "perhaps"}, "/show_addresses"),
        ({"decrypt": True}, "/decrypt"),
    ],
)
def test_a_wrong_config_is_refused_by_its_place(config: dict[str, Json], pointer: str) -> None:
    with pytest.raises(SettingsFailure) as caught:
        parse_config(OP, config)
    assert caught.value.info.code == "op_config_invalid"
    assert caught.value.info.details["pointer"] == pointer


def test_a_pattern_that_does_not_compile_is_refused_with_reason_and_place() -> None:
    with pytest.raises(SettingsFailure) as caught:
        parse_config(OP, {"filter_label": "prod[z-a]"})
    assert caught.value.info.details["reason"] == (
        "not a regular expression: bad character range z-a at position 5"
    )


def test_a_pattern_that_a_later_python_reads_otherwise_is_no_trouble() -> None:
    parse_config(OP, {"filter_label": "[[a]"})


def test_every_option_says_what_it_is_for() -> None:
    assert all(info.description for info in KeystoreListConfig.model_fields.values())


FULL = entry(label="deployer", address=ADDRESS, created="2024-01-02T03:04:05.678901234Z")


def test_a_wide_table_holds_everything_whole() -> None:
    heading, row = text_of([FULL], 1000).split("\n")
    assert heading.split() == ["LABEL", "ADDRESS", "CREATED", "KDF", "CIPHER", "ID"]
    assert row.split() == [
        str(FULL[key]) for key in ("label", "address", "created", "kdf", "cipher", "id")
    ]


def test_eighty_columns_hold_label_whole_address_date_and_kdf() -> None:
    assert text_of([FULL], 80).split("\n") == [
        "LABEL     ADDRESS                                     CREATED     KDF",
        "deployer  0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed  2024-01-02  scrypt",
    ]


def test_columns_without_a_value_show_a_dash() -> None:
    assert text_of([entry()], 80).split("\n")[1].split()[:3] == ["-", "-", "-"]


def test_hidden_addresses_leave_their_room_to_the_other_columns() -> None:
    heading, _ = text_of(without_addresses([FULL]), 80).split("\n")
    assert heading.split() == ["LABEL", "CREATED", "KDF", "CIPHER", "ID"]


LABELS = st.none() | st.text("aé漢e\u0301", min_size=1, max_size=60)


@given(st.lists(LABELS, min_size=1, max_size=4), st.integers(30, 200), st.booleans())
def test_no_line_is_wider_than_the_screen(
    labels: list[str | None], width: int, hidden: bool
) -> None:
    entries = [FULL | {"label": label} for label in labels]
    text = text_of(without_addresses(entries) if hidden else entries, width)
    lines = text.split("\n")
    assert len(lines) == len(labels) + 1
    # A wide character takes two columns, and a combining one at least none.
    wide = [sum(2 if char == "漢" else char != "\u0301" for char in line) for line in lines]
    assert max(wide) <= width


def test_a_long_label_is_cut_visibly_and_costs_no_column() -> None:
    heading, row = text_of([FULL | {"label": "x" * 60}], 80).split("\n")
    assert heading.split() == ["LABEL", "ADDRESS", "CREATED", "KDF"]
    assert row.startswith("x" * 15 + "…  0x")


def test_no_keystores_are_no_lines() -> None:
    assert text_of([], 80) == ""


def test_without_a_selection_the_text_is_left_to_the_command_line() -> None:
    assert OP.render_text({}, 80) is None
    assert OP.text_notes({}) == []


def test_warnings_and_hint_are_notes() -> None:
    assert OP.text_notes({"warnings": [WARNING], "hint": "Look elsewhere."}) == [
        "warning: notes: The content is not JSON.",
        "hint: Look elsewhere.",
    ]


def test_thousands_of_warnings_are_summed_up() -> None:
    told = OP.text_notes({"warnings": [WARNING for _ in range(5000)], "hint": None})
    assert len(told) == MAX_NOTED_WARNINGS + 1
    assert told[-1] == "warning: 4980 more; --json shows them all"
