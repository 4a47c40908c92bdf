"""`mfm_ops.sdk.planner` and `scope`: expansion, edges, ports, and what a state can see."""

from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfm_ops.machine.canonical import Json
from mfm_ops.machine.config import RunManifest
from mfm_ops.machine.context import DynContext
from mfm_ops.machine.errors import ContextFailure, MfmFailure, RunFailure, SettingsFailure
from mfm_ops.machine.ids import ContextKey, OpId, OpPath, StateId
from mfm_ops.machine.io import IoProvider
from mfm_ops.machine.plan import (
    DependencyEdge,
    ExecutionPlan,
    GraphValidator,
    StateGraph,
    StateNode,
    plan_digest,
)
from mfm_ops.machine.recorder import EventRecorder
from mfm_ops.sdk.operation import OpIo
from mfm_ops.sdk.pipeline import single_op_pipeline
from mfm_ops.sdk.planner import (
    OpRegistry,
    build_plan,
    exports,
    initial_values,
    input_params,
    output_operation,
    renewed,
)
from mfm_ops.sdk.scope import ScopedContext
from tests.unit.sdk_ops import (
    DictContext,
    DoState,
    Expands,
    Say,
    SayConfig,
    Shout,
    manifest_of,
    nothing,
    one_state,
    pipeline,
    step,
)

pytestmark = pytest.mark.anyio

REGISTRY = OpRegistry([Say(), Shout()])
# None of these states does IO or emits.
NO_IO = cast(IoProvider, None)
NO_RECORDER = cast(EventRecorder, None)


async def run_through(plan: ExecutionPlan, manifest: RunManifest) -> dict[str, Json]:
    """The final context of `plan` when its states run in plan order."""
    context = DictContext(initial_values(manifest))
    for node in plan.graph.states:
        await node.state.handle(context, NO_IO, NO_RECORDER)
    return context.dump()


def ids(plan: ExecutionPlan) -> list[str]:
    return [str(node.id) for node in plan.graph.states]


def edges(plan: ExecutionPlan) -> set[tuple[str, str]]:
    return {(str(edge.from_), str(edge.to)) for edge in plan.graph.edges}


def refused(manifest: RunManifest, registry: OpRegistry = REGISTRY) -> MfmFailure:
    with pytest.raises((SettingsFailure, RunFailure)) as caught:
        build_plan(manifest, registry)
    return caught.value


def test_one_op_expands_under_its_own_name() -> None:
    plan = build_plan(manifest_of(single_op_pipeline(Say(), SayConfig())), REGISTRY)
    assert plan.op_id == OpId("say")
    assert ids(plan) == ["say.main.say"]
    assert edges(plan) == set()


def test_every_sink_of_a_step_comes_before_every_root_of_the_next() -> None:
    plan = build_plan(
        manifest_of(pipeline(step("a", Say()), step("b", Shout()), step("c", Say()))), REGISTRY
    )
    assert ids(plan) == ["m.a.say", "m.b.left", "m.b.right", "m.b.join", "m.c.say"]
    assert edges(plan) == {
        ("m.a.say", "m.b.left"),
        ("m.a.say", "m.b.right"),
        ("m.b.left", "m.b.join"),
        ("m.b.right", "m.b.join"),
        ("m.b.join", "m.c.say"),
    }


@given(st.lists(st.sampled_from([Say(), Shout()]), min_size=1, max_size=6))
def test_any_pipeline_plans_to_a_valid_graph_and_twice_to_the_same(ops: list[Say | Shout]) -> None:
    steps = [step("first", Say()), *(step(f"s{i}", op) for i, op in enumerate(ops))]
    manifest = manifest_of(pipeline(*steps))
    plan = build_plan(manifest, REGISTRY)
    GraphValidator().validate(plan)
    assert plan_digest(plan) == plan_digest(build_plan(manifest, REGISTRY))


def test_a_manifest_read_back_from_its_bytes_gives_the_same_plan() -> None:
    manifest = manifest_of(pipeline(step("a", Say()), step("b", Shout())))
    again = RunManifest.model_validate_json(manifest.model_dump_json())
    assert plan_digest(build_plan(again, REGISTRY)) == plan_digest(build_plan(manifest, REGISTRY))


def test_the_digest_changes_with_ids_edges_metas_and_order() -> None:
    def digest(*names: str, edge: tuple[str, str] | None = None) -> str:
        graph = StateGraph(
            tuple(StateNode(StateId(f"m.s.{name}"), DoState(nothing)) for name in names),
            (DependencyEdge.between(StateId(edge[0]), StateId(edge[1])),) if edge else (),
        )
        return plan_digest(ExecutionPlan(OpId("m"), graph))

    digests = {
        digest("a"),
        digest("a", "b"),
        digest("b", "a"),
        digest("a", "b", edge=("m.s.a", "m.s.b")),
        digest("a", "b", edge=("m.s.b", "m.s.a")),
    }
    assert len(digests) == 5


async def test_an_import_reads_what_an_earlier_step_exports() -> None:
    manifest = manifest_of(pipeline(step("a", Say(), {"text": "psst"}), step("b", Shout())))
    final = await run_through(build_plan(manifest, REGISTRY), manifest)
    assert final == {"m.a.said": "psst", "m.b.shouted": "PSST"}


async def test_the_latest_of_several_exporters_provides_an_import() -> None:
    manifest = manifest_of(
        pipeline(
            step("old", Say(), {"text": "old"}),
            step("new", Say(), {"text": "new"}),
            step("b", Shout()),
            step("later", Say(), {"text": "later"}),
        )
    )
    final = await run_through(build_plan(manifest, REGISTRY), manifest)
    assert final["m.b.shouted"] == "NEW"


async def test_the_input_provides_what_no_earlier_step_exports() -> None:
    manifest = manifest_of(pipeline(step("b", Shout())), {"said": "in"})
    assert initial_values(manifest) == {ContextKey("m.input.said"): "in"}
    final = await run_through(build_plan(manifest, REGISTRY), manifest)
    assert final["m.b.shouted"] == "IN"


def test_an_import_that_nothing_provides_fails_planning_by_name() -> None:
    failure = refused(manifest_of(pipeline(step("b", Shout()), step("a", Say()))))
    assert failure.info.code == "import_unresolved"
    assert failure.info.details == {"op_id": "shout", "step_id": "b", "key": "said"}


def test_an_input_that_no_step_takes_is_refused_by_its_place() -> None:
    failure = refused(manifest_of(pipeline(step("a", Say())), {"siad": "typo"}))
    assert failure.info.code == "pipeline_invalid"
    assert failure.info.details["pointer"] == "/input/siad"


def test_an_invalid_config_fails_planning() -> None:
    assert refused(manifest_of(pipeline(step("a", Say(), {"times": 0})))).info.code == (
        "op_config_invalid"
    )


@pytest.mark.parametrize("params", [None, {}, {"pipeline": {}}, {"pipeline": {}, "input": {}}])
def test_a_manifest_that_holds_no_pipeline_is_refused(params: Json) -> None:
    manifest = manifest_of(pipeline(step("a", Say()))).model_copy(update={"input_params": params})
    assert refused(manifest).info.code == "pipeline_invalid"


@pytest.mark.parametrize(("field", "value"), [("op_id", OpId("other")), ("op_version", "9")])
def test_a_manifest_of_another_op_than_its_pipeline_is_refused(field: str, value: str) -> None:
    manifest = manifest_of(pipeline(step("a", Say()))).model_copy(update={field: value})
    failure = refused(manifest)
    assert failure.info.code == "manifest_mismatch"
    assert failure.info.details == {"field": field}


def expanding(graph: Callable[[OpPath], StateGraph], ports: OpIo | None = None) -> MfmFailure:
    op = Expands(graph, ports or OpIo())
    return refused(manifest_of(pipeline(step("a", op))), OpRegistry([op]))


def test_a_state_outside_its_ops_path_is_refused() -> None:
    failure = expanding(
        lambda _: StateGraph((StateNode(StateId("m.b.stray"), DoState(nothing)),), ())
    )
    assert failure.info.code == "invalid_plan"
    assert failure.info.details["state_id"] == "m.b.stray"


def test_an_op_that_cannot_be_expanded_is_its_authors_mistake() -> None:
    def raises(op_path: OpPath) -> StateGraph:
        return StateGraph((StateNode(StateId(f"{op_path}.No Id"), DoState(nothing)),), ())

    info = expanding(raises).info
    assert info.code == "invalid_plan"
    assert info.details == {
        "op_id": "expands",
        "reason": "expanding raised an exception",
        "exception": "IdValidationError",
    }


# What an author writes who asks no type checker.
ANY_GRAPH: Any = StateGraph
ANY_NODE: Any = StateNode


def nodes(op_path: OpPath, *names: str) -> Iterator[StateNode]:
    return (StateNode(StateId(f"{op_path}.{name}"), DoState(nothing)) for name in names)


@pytest.mark.parametrize(
    "given",
    [
        lambda _: None,
        lambda path: tuple(nodes(path, "a")),
        lambda path: ANY_GRAPH((DoState(nothing),), ()),
        lambda path: ANY_GRAPH((ANY_NODE(f"{path}.No Id", DoState(nothing)),), ()),
        lambda path: ANY_GRAPH((ANY_NODE(7, DoState(nothing)),), ()),
        lambda path: ANY_GRAPH(tuple(nodes(path, "a", "b")), ((f"{path}.a", f"{path}.b"),)),
    ],
)
def test_what_is_no_graph_is_its_authors_mistake(given: Any) -> None:
    info = expanding(given).info
    assert info.code == "invalid_plan"
    assert info.details is not None
    assert info.details["reason"] == "expanding gave no StateGraph of nodes and edges"


def test_a_graph_of_generators_and_plain_texts_is_read_once_and_whole() -> None:
    def graph(op_path: OpPath) -> Any:
        edge = DependencyEdge.between(StateId(f"{op_path}.b"), StateId(f"{op_path}.a"))
        return ANY_GRAPH(
            (ANY_NODE(str(node.id), node.state) for node in nodes(op_path, "a", "b")),
            (each for each in [edge]),
        )

    op = Expands(graph, OpIo())
    plan = build_plan(manifest_of(pipeline(step("a", op))), OpRegistry([op]))
    assert [type(node.id) for node in plan.graph.states] == [StateId, StateId]
    assert [(edge.from_, edge.to) for edge in plan.graph.edges] == [("m.a.b", "m.a.a")]


@pytest.mark.parametrize("ports", [None, OpIo(imports="ab"), OpIo(exports=(5,))])  # type: ignore[arg-type]
def test_ports_that_are_no_texts_are_their_authors_mistake(ports: Any) -> None:
    class Ported(Say):
        def io(self) -> OpIo:
            return ports  # type: ignore[no-any-return]

    op = Ported()
    info = refused(manifest_of(pipeline(step("a", op, {"text": "x"}))), OpRegistry([op])).info
    assert (info.code, info.details["exception"]) == ("invalid_plan", "TypeError")


def test_an_op_without_states_is_refused() -> None:
    failure = expanding(lambda _: StateGraph((), ()))
    assert failure.info.details == {"reason": "EmptyPlan", "op_id": "expands"}


def test_an_op_with_a_cycle_is_refused_and_the_cycle_named() -> None:
    def graph(op_path: OpPath) -> StateGraph:
        one, two = StateId(f"{op_path}.one"), StateId(f"{op_path}.two")
        return StateGraph(
            (StateNode(one, DoState(nothing)), StateNode(two, DoState(nothing))),
            (DependencyEdge.between(one, two), DependencyEdge.between(two, one)),
        )

    failure = expanding(graph)
    assert failure.info.details["reason"] == "CircularDependency"
    assert sorted(failure.info.details["cycle"]) == ["m.a.one", "m.a.two"]


@pytest.mark.parametrize(
    "ports",
    [
        OpIo(exports=("x", "x")),
        OpIo(imports=("x",), exports=("x",)),
        OpIo(exports=("a.b",)),
        OpIo(imports=("",)),
    ],
)
def test_ports_are_id_segments_and_each_is_used_once(ports: OpIo) -> None:
    assert expanding(one_state(nothing), ports).info.code == "invalid_plan"


def test_two_ops_of_one_id_are_refused() -> None:
    with pytest.raises(ValueError, match="say"):
        OpRegistry([Say(), Say()])


async def test_a_key_that_is_not_exported_stays_with_its_op() -> None:
    secretive = Expands(one_state(lambda ctx: ctx.write(ContextKey("said"), "mine")))
    manifest = manifest_of(pipeline(step("a", secretive), step("b", Shout())))
    assert refused(manifest, OpRegistry([secretive, Shout()])).info.code == "import_unresolved"


async def in_state(
    act: Callable[[DynContext], None], ports: OpIo | None = None, **given: Json
) -> dict[str, Json]:
    op = Expands(one_state(act), ports or OpIo())
    manifest = manifest_of(pipeline(step("a", op)), given)
    return await run_through(build_plan(manifest, OpRegistry([op])), manifest)


async def test_a_bare_key_stands_for_the_key_under_the_ops_path() -> None:
    assert await in_state(lambda ctx: ctx.write(ContextKey("k"), 1)) == {"m.a.k": 1}


@pytest.mark.parametrize("key", ["m.a.k", "m.b.k", ".", ""])
async def test_a_key_with_dots_is_refused(key: str) -> None:
    for act in (
        lambda ctx: ctx.read(ContextKey(key)),
        lambda ctx: ctx.write(ContextKey(key), 1),
        lambda ctx: ctx.delete(ContextKey(key)),
    ):
        with pytest.raises(ContextFailure) as caught:
            await in_state(act)
        assert caught.value.info.code == "context_key_forbidden"


async def test_an_import_is_neither_written_nor_deleted() -> None:
    for act in (
        lambda ctx: ctx.write(ContextKey("said"), 1),
        lambda ctx: ctx.delete(ContextKey("said")),
    ):
        with pytest.raises(ContextFailure) as caught:
            await in_state(act, OpIo(imports=("said",)), said="in")
        assert caught.value.info.code == "context_key_forbidden"


async def test_a_dump_shows_the_ops_own_keys_and_its_imports_alone() -> None:
    seen: dict[str, Json] = {}

    def look(ctx: DynContext) -> None:
        ctx.write(ContextKey("own"), 1)
        seen.update(ctx.dump())

    looker = Expands(one_state(look), OpIo(imports=("said",)))
    manifest = manifest_of(pipeline(step("x", Say()), step("x2", looker)))
    await run_through(build_plan(manifest, OpRegistry([Say(), looker])), manifest)
    assert seen == {"own": 1, "said": "hello"}


async def test_a_deleted_key_is_gone() -> None:
    def act(ctx: DynContext) -> None:
        ctx.write(ContextKey("k"), 1)
        ctx.delete(ContextKey("k"))

    assert await in_state(act) == {}


async def test_states_read_and_write_typed_values() -> None:
    read: list[tuple[int, ...] | None] = []

    def act(ctx: DynContext) -> None:
        assert isinstance(ctx, ScopedContext)
        ctx.write_typed(ContextKey("k"), (1, 2))
        read.append(ctx.read_typed(ContextKey("k"), tuple[int, ...]))

    assert await in_state(act) == {"m.a.k": [1, 2]}
    assert read == [(1, 2)]


def test_a_runs_outputs_are_the_exports_of_the_last_step_that_has_any() -> None:
    quiet = Expands(one_state(nothing))
    registry = OpRegistry([Say(), Shout(), quiet])
    manifest = manifest_of(pipeline(step("a", Say()), step("b", Shout()), step("c", quiet)))
    snapshot: dict[str, Json] = {"m.a.said": "psst", "m.b.shouted": "PSST", "m.b.private": 1}
    assert exports(manifest, registry, snapshot) == {"shouted": "PSST"}
    op = output_operation(manifest, registry)
    assert op is not None
    assert op.op_id == "shout"


def test_a_run_without_exports_has_no_outputs() -> None:
    quiet = Expands(one_state(nothing))
    manifest, registry = manifest_of(pipeline(step("c", quiet))), OpRegistry([quiet])
    assert exports(manifest, registry, {"m.c.private": 1}) == {}
    assert output_operation(manifest, registry) is None


def test_an_export_that_was_never_written_is_left_out() -> None:
    assert exports(manifest_of(pipeline(step("a", Say()))), REGISTRY, {}) == {}


def test_an_input_without_a_canonical_form_is_refused_by_its_place() -> None:
    with pytest.raises(SettingsFailure) as caught:
        input_params(pipeline(step("b", Shout())), {"said": [cast(Json, 1.5)]})
    assert caught.value.info.details["pointer"] == "/input/said/0"


# Renewing a manifest for a fork


class NewSay(Say):
    """`Say`, one version on."""

    op_version = "99"


NEWER = OpRegistry([NewSay(), Shout()])


def test_a_renewed_manifest_names_the_versions_that_are_installed() -> None:
    old = manifest_of(single_op_pipeline(Say(), SayConfig(text="x")))
    with pytest.raises(RunFailure):
        build_plan(old, NEWER)
    new = renewed(old, NEWER)
    assert new.op_version == "99"
    assert build_plan(new, NEWER).op_id == old.op_id
    assert renewed(old, REGISTRY) == old


def test_a_pipeline_keeps_its_own_version_when_it_is_renewed() -> None:
    old = manifest_of(pipeline(step("one", Say(), {"text": "x"}), step("two", Shout())))
    new = renewed(old, NEWER)
    assert new.op_version == old.op_version
    build_plan(new, NEWER)


def test_what_is_not_installed_cannot_be_renewed() -> None:
    old = manifest_of(single_op_pipeline(Say(), SayConfig(text="x")))
    with pytest.raises(SettingsFailure) as refused:
        renewed(old, OpRegistry([Shout()]))
    assert refused.value.info.code == "op_unknown"
