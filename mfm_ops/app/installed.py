"""Which ops and transports this installation has: its own by table, others by entry points.

Nothing is imported before it is asked for by name, and packages' metadata, slow to read, only when
a name is not our own. A broken entry point is noted, never fatal.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from mfm_ops.machine.errors import SettingsFailure
from mfm_ops.machine.ids import IdValidationError, OpId
from mfm_ops.machine.transport import CHILD_RUN_GROUP
from mfm_ops.runtime.router import TransportRegistry
from mfm_ops.sdk.operation import AnyOperation, OpConfig, Operation

if TYPE_CHECKING:
    from pathlib import Path

    from mfm_ops.machine.canonical import Json
    from mfm_ops.machine.transport import LiveIoEnv, LiveIoTransport, LiveIoTransportFactory
    from transports.nix_resolver import NixSite
    from transports.policy import ExecPolicy

__all__ = [
    "Broken",
    "InstalledOps",
    "InstalledTransports",
    "built_in_factories",
]

OPS_GROUP: Final = "mfm.ops"
TRANSPORTS_GROUP: Final = "mfm.transports"

_BUILT_IN_OPS: Final[Mapping[str, str]] = {
    "keystore_list": "mfm_ops.ops.keystore:KeystoreList",
    "nix_app": "mfm_ops.ops.nix_app:NixApp",
    "run_program": "mfm_ops.ops.programs:RunProgram",
}
_log = logging.getLogger(__name__)


class Broken(NamedTuple):
    """An entry point of another package that cannot be used."""

    group: str
    name: str
    value: str
    reason: str


class InstalledOps(Mapping[OpId, AnyOperation]):
    """Every op by its id. Looking one of our own up imports its module alone."""

    def __init__(self) -> None:
        self._loaded: dict[str, AnyOperation] = {}
        self._searched = False
        self.broken: list[Broken] = []

    def __getitem__(self, op_id: str) -> AnyOperation:
        if op_id not in self._loaded:
            if op_id in _BUILT_IN_OPS:
                self._loaded[op_id] = _made(_load(_BUILT_IN_OPS[op_id]))
            else:
                self._search()
        return self._loaded[op_id]

    def __iter__(self) -> Iterator[OpId]:
        self._search()
        theirs = sorted(set(self._loaded) - set(_BUILT_IN_OPS))
        return iter([OpId(name) for name in (*_BUILT_IN_OPS, *theirs)])

    def __len__(self) -> int:
        return len(list(iter(self)))

    def find(self, name: str) -> AnyOperation | None:
        """The op that a user calls `name`, if there is one."""
        try:
            return self[name]
        except KeyError:
            return None

    def origin(self, op_id: str) -> str:
        """`mfm`, or the module that another package's op comes from."""
        return "mfm" if op_id in _BUILT_IN_OPS else type(self[op_id]).__module__

    def _search(self) -> None:
        if self._searched:
            return
        self._searched = True
        for name, value, found in _entry_points(OPS_GROUP, self.broken):
            reason = _why_no_op(name, found)
            if reason is None and name in {*_BUILT_IN_OPS, *self._loaded}:
                reason = "an op of this name is installed already"
            if reason is None:
                self._loaded[name] = found
            else:
                self.broken.append(_noted(Broken(OPS_GROUP, name, value, reason)))


class InstalledTransports(TransportRegistry):
    """Our transports, and other packages' where a namespace may be theirs."""

    def __init__(self, built_in: list[LiveIoTransportFactory]) -> None:
        super().__init__(built_in)
        self._searched = False
        self.broken: list[Broken] = []

    def factory_for(self, namespace: str) -> LiveIoTransportFactory | None:
        """As the registry's, after looking for other packages' where theirs may be longer."""
        # No group that owns a namespace is longer than the namespace itself.
        if namespace not in self.groups:
            self.search()
        return super().factory_for(namespace)

    def search(self) -> None:
        """Register what other packages offer."""
        if self._searched:
            return
        self._searched = True
        for name, value, found in _entry_points(TRANSPORTS_GROUP, self.broken):
            reason = None
            if not hasattr(found, "make") or not isinstance(
                getattr(found, "namespace_group", None), str
            ):
                reason = "not a LiveIoTransportFactory"
            else:
                try:
                    self.register(found)
                except SettingsFailure as failure:
                    reason = failure.info.message
            if reason is not None:
                self.broken.append(_noted(Broken(TRANSPORTS_GROUP, name, value, reason)))


class _Deferred:
    """A factory whose module is imported when it makes its first transport."""

    def __init__(self, namespace_group: str, load: Callable[[], LiveIoTransportFactory]) -> None:
        self.namespace_group = namespace_group
        self._load = load
        self._factory: LiveIoTransportFactory | None = None

    def make(self, env: LiveIoEnv) -> LiveIoTransport:
        if self._factory is None:
            self._factory = self._load()
        return self._factory.make(env)


def built_in_factories(
    policy: ExecPolicy,
    stderr_sink: Callable[[bytes], None] | None = None,
    *,
    site_policy: Mapping[str, Json] | None = None,
    nix_site: Callable[[], NixSite] | None = None,
    keystore_dir: Path | None = None,
    keystore_named: bool = False,
) -> list[LiveIoTransportFactory]:
    """The transports that come with mfm, under the site's policy.

    `site_policy` is the whole of it as it is stored, `nix_site` what Nix is given, asked for when
    it is needed; without it there is no Nix. `keystore_dir` is where keystores lie by default,
    `keystore_named` whether somebody said so.
    """
    whole = policy.to_json() if site_policy is None else dict(site_policy)

    def exec_factory() -> LiveIoTransportFactory:
        from mfm_ops.machine.canonical import artifact_id_for_json
        from transports.exec import ExecFactory

        digest = artifact_id_for_json(whole)
        return ExecFactory(policy, digest, stderr_sink=stderr_sink)

    def nix_factory(site: Callable[[], NixSite]) -> LiveIoTransportFactory:
        from mfm_ops.machine.canonical import artifact_id_for_json
        from transports.nix_exec import NixExecFactory

        digest = artifact_id_for_json(whole)
        return NixExecFactory(site(), policy, digest, stderr_sink=stderr_sink)

    def keystore_factory() -> LiveIoTransportFactory:
        from transports.keystore import KeystoreFactory

        place = None if keystore_dir is None else str(keystore_dir)
        return KeystoreFactory(place, keystore_named)

    def children() -> LiveIoTransportFactory:
        raise NotImplementedError("the engine serves this group itself")

    factories: list[LiveIoTransportFactory] = [
        _Deferred("exec", exec_factory),
        _Deferred("local.keystore", keystore_factory),
        # So that it is listed, and nobody else's.
        _Deferred(CHILD_RUN_GROUP, children),
    ]
    if nix_site is not None:
        factories.append(_Deferred("nix.exec", partial(nix_factory, nix_site)))
    return factories


def _entry_points(group: str, broken: list[Broken]) -> Iterator[tuple[str, str, Any]]:
    import importlib.metadata

    for entry in sorted(importlib.metadata.entry_points(group=group), key=lambda e: e.name):
        try:
            made = _made(entry.load())
        except (Exception, SystemExit) as error:  # noqa: BLE001 - anything can go wrong there
            broken.append(_noted(Broken(group, entry.name, entry.value, type(error).__name__)))
        else:
            yield entry.name, entry.value, made


def _why_no_op(name: str, found: object) -> str | None:
    if not isinstance(found, Operation):
        return "not an Operation"
    try:
        op_id = OpId(found.op_id)
    except (AttributeError, IdValidationError):
        return "its op_id is missing or malformed"
    if op_id != name:
        return "its op_id is not the entry point's name"
    for text in ("op_version", "summary"):
        if not isinstance(getattr(found, text, None), str):
            return f"its {text} is missing"
    model = getattr(found, "config_model", None)
    is_config = isinstance(model, type) and issubclass(model, OpConfig)
    return None if is_config else "its config_model is no OpConfig"


def _noted(broken: Broken) -> Broken:
    _log.warning("entry point %s of %s is unusable: %s", broken.name, broken.group, broken.reason)
    return broken


def _load(value: str) -> Any:
    module, _, attribute = value.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _made(found: Any) -> Any:
    return found() if isinstance(found, type) else found
