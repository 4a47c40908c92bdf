"""`mfm_ops.sdk.pipeline`: what a pipeline may say, and how it is refused."""

import pytest
from pydantic import model_validator

from mfm_ops.machine.canonical import Json
from mfm_ops.machine.errors import RunFailure, SettingsFailure
from mfm_ops.sdk.operation import OpConfig
from mfm_ops.sdk.pipeline import (
    Pipeline,
    complete_pipeline,
    parse_config,
    parse_pipeline,
    single_op_pipeline,
)
from mfm_ops.sdk.planner import OpRegistry
from tests.unit.sdk_ops import Say, SayConfig, Shout, pipeline, step

REGISTRY = OpRegistry([Say(), Shout()])


def document(**changes: Json) -> dict[str, Json]:
    base: dict[str, Json] = {
        "machine_id": "m",
        "pipeline_version": "1",
        "steps": [{"step_id": "a", "op_id": "say", "op_version": "1", "op_config": {}}],
    }
    return base | changes


def refusal(value: Json) -> tuple[str, Json]:
    with pytest.raises(SettingsFailure) as caught:
        parse_pipeline(value)
    assert isinstance(caught.value.info.details, dict)
    return str(caught.value.info.code), caught.value.info.details["pointer"]


def test_a_pipeline_reads_back_as_it_was_written() -> None:
    plan = pipeline(step("a", Say(), {"text": "hi"}), step("b", Shout()))
    assert parse_pipeline(plan.model_dump(mode="json")) == plan


def test_one_op_alone_is_a_pipeline_of_one_step_main_named_like_the_op() -> None:
    plan = single_op_pipeline(Say(), SayConfig(text="hi"))
    assert plan.model_dump(mode="json") == {
        "machine_id": "say",
        "pipeline_version": "1",
        "steps": [
            {
                "step_id": "main",
                "op_id": "say",
                "op_version": "1",
                "op_config": {"text": "hi", "times": 1},
            }
        ],
    }


def test_a_pipeline_without_steps_is_refused() -> None:
    assert refusal(document(steps=[])) == ("pipeline_invalid", "")


def test_two_steps_of_one_id_are_refused() -> None:
    twice: Json = [{"step_id": "a", "op_id": "say", "op_version": "1", "op_config": {}}] * 2
    assert refusal(document(steps=twice)) == ("pipeline_invalid", "")


def test_the_step_id_input_is_reserved() -> None:
    named: Json = [{"step_id": "input", "op_id": "say", "op_version": "1", "op_config": {}}]
    assert refusal(document(steps=named)) == ("pipeline_invalid", "")


@pytest.mark.parametrize("name", ["", "M", "a.b", "a\n", "1a", "a" * 64])
def test_ids_of_machine_and_steps_are_id_segments(name: str) -> None:
    assert refusal(document(machine_id=name)) == ("pipeline_invalid", "/machine_id")
    steps: Json = [{"step_id": name, "op_id": "say", "op_version": "1", "op_config": {}}]
    assert refusal(document(steps=steps)) == ("pipeline_invalid", "/steps/0/step_id")


def test_an_unknown_field_is_refused_by_its_place() -> None:
    assert refusal(document(retries=3)) == ("pipeline_invalid", "/retries")


def test_a_float_in_a_config_is_refused_by_its_place() -> None:
    steps: list[Json] = [{"op_config": {"ratio": 1.5}}]  # type: ignore[dict-item]
    assert refusal(document(steps=steps)) == ("pipeline_invalid", "/steps/0/op_config/ratio")


def test_no_object_at_all_is_refused() -> None:
    assert refusal(["m"]) == ("pipeline_invalid", "")


def test_a_config_is_refused_with_op_place_and_reason() -> None:
    with pytest.raises(SettingsFailure) as caught:
        parse_config(Say(), {"times": 0})
    assert caught.value.info.code == "op_config_invalid"
    assert caught.value.info.details == {
        "op_id": "say",
        "pointer": "/times",
        "reason": "Input should be greater than or equal to 1",
    }


def test_a_refused_config_does_not_show_the_value() -> None:
    with pytest.raises(SettingsFailure) as caught:
        parse_config(Say(), {"times": "hunter2hunter2"})
    assert "hunter2" not in caught.value.info.model_dump_json()
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_an_unknown_config_field_is_refused() -> None:
    with pytest.raises(SettingsFailure) as caught:
        parse_config(Say(), {"loud": True})
    assert caught.value.info.details["pointer"] == "/loud"


def test_a_config_without_a_canonical_form_is_refused_by_its_place() -> None:
    class Ratio(OpConfig):
        ratio: float

    with pytest.raises(SettingsFailure) as caught:
        single_op_pipeline(Say(), Ratio(ratio=1.5))
    assert caught.value.info.details["pointer"] == "/ratio"


def test_defaults_are_written_out_so_that_spelling_one_out_changes_nothing() -> None:
    spelt: Pipeline = complete_pipeline(pipeline(step("a", Say(), {"text": "hello"})), REGISTRY)
    silent = complete_pipeline(pipeline(step("a", Say())), REGISTRY)
    assert spelt == silent
    assert silent.steps[0].op_config == {"text": "hello", "times": 1}


def test_an_op_that_is_not_installed_is_named() -> None:
    with pytest.raises(SettingsFailure) as caught:
        complete_pipeline(pipeline(step("a", Say())), OpRegistry([Shout()]))
    assert caught.value.info.code == "op_unknown"
    assert caught.value.info.details == {"op_id": "say"}


def test_an_op_of_another_version_is_a_changed_plan() -> None:
    old = step("a", Say()).model_copy(update={"op_version": "0"})
    with pytest.raises(RunFailure) as caught:
        complete_pipeline(pipeline(old), REGISTRY)
    assert caught.value.info.code == "plan_changed"
    assert caught.value.info.details == {
        "field": "op_version",
        "op_id": "say",
        "expected": "0",
        "found": "1",
    }


class Crashing(SayConfig):
    text: str = "x"

    @model_validator(mode="after")
    def _crash(self) -> "Crashing":
        raise RuntimeError("not what a validator raises")


def test_a_config_model_that_crashes_is_its_authors_mistake() -> None:
    class Op(Say):
        config_model = Crashing

    with pytest.raises(RunFailure) as caught:
        parse_config(Op(), {})
    info = caught.value.info
    assert (info.code, info.details) == (
        "invalid_plan",
        {
            "op_id": "say",
            "reason": "its config model raised an exception",
            "exception": "RuntimeError",
        },
    )
