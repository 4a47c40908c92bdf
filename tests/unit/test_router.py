"""`mfm_ops.runtime.router`: the longest registered group serves a namespace."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfm_ops.machine.errors import IoFailure, SettingsFailure
from mfm_ops.machine.meta import SideEffectKind
from mfm_ops.runtime.router import Router, TransportRegistry, longest_group
from mfm_ops.storage.memory import MemoryStore
from tests.support import IoBench, ScriptedFactory

PARTS = st.lists(st.sampled_from(["a", "b", "ab"]), min_size=1, max_size=4)
NAMES = PARTS.map(".".join)


@pytest.mark.parametrize(
    ("namespace", "group"),
    [
        ("nix", "nix"),
        ("nix.exec", "nix.exec"),
        ("nix.exec.x", "nix.exec"),
        ("nix.execute", "nix"),
        ("nix.other", "nix"),
        ("nixos", None),
        ("exec", None),
        ("", None),
        (".nix", None),
        ("NIX", None),
    ],
)
def test_the_longest_group_owns_a_namespace(namespace: str, group: str | None) -> None:
    assert longest_group(namespace, ["nix", "nix.exec"]) == group


@given(NAMES, st.lists(NAMES, max_size=6))
def test_a_group_owns_what_has_all_its_parts_in_front(namespace: str, groups: list[str]) -> None:
    parts = namespace.split(".")
    prefixes = [".".join(parts[:length]) for length in range(len(parts), 0, -1)]
    expected = next((prefix for prefix in prefixes if prefix in groups), None)
    assert longest_group(namespace, groups) == expected


@pytest.mark.parametrize(("group", "reason"), [("", "empty"), ("nix", "taken")])
def test_an_empty_or_a_taken_group_cannot_be_registered(group: str, reason: str) -> None:
    registry = TransportRegistry([ScriptedFactory(group="nix")])
    with pytest.raises(SettingsFailure) as refused:
        registry.register(ScriptedFactory(group=group))
    assert refused.value.info.code == "io_namespace_invalid"
    assert refused.value.info.details == {"group": group, "reason": reason}
    assert registry.groups == ("nix",)


def test_groups_are_told_sorted() -> None:
    factories = [ScriptedFactory(group=group) for group in ("nix.exec", "exec", "nix")]
    assert TransportRegistry(factories).groups == ("exec", "nix", "nix.exec")


def test_a_transport_is_made_once_for_all_namespaces_of_its_group() -> None:
    factory = ScriptedFactory(group="nix")
    router = Router(
        TransportRegistry([factory]), IoBench(MemoryStore()).env(SideEffectKind.ReadOnlyIo)
    )
    assert factory.made == 0
    assert router.transport_for("nix.one") is router.transport_for("nix.two")
    assert factory.made == 1


def test_an_unknown_namespace_is_refused_without_an_echo() -> None:
    router = Router(TransportRegistry(), IoBench(MemoryStore()).env(SideEffectKind.ReadOnlyIo))
    with pytest.raises(IoFailure) as refused:
        router.transport_for("hidden.namespace")
    assert refused.value.info.code == "io_unknown_namespace"
    assert refused.value.info.details is None
    assert "hidden" not in str(refused.value)
