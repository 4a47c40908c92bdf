"""Which transport serves a namespace (the contract, section 7)."""

from collections.abc import Iterable

from mfm_ops.machine.codes import error_info
from mfm_ops.machine.errors import IoError, IoFailure, SettingsFailure
from mfm_ops.machine.transport import LiveIoEnv, LiveIoTransport, LiveIoTransportFactory

__all__ = ["Router", "TransportRegistry", "longest_group"]


def longest_group(namespace: str, groups: Iterable[str]) -> str | None:
    """The most specific registered group that owns `namespace`, if any.

    >>> longest_group("nix.exec", ["nix", "nix.exec", "exec"])
    'nix.exec'
    >>> longest_group("nixos", ["nix"]) is None
    True
    """
    owners = (g for g in groups if namespace == g or namespace.startswith(g + "."))
    return max(owners, key=len, default=None)


class TransportRegistry:
    """The transport factories of an application, one for each namespace group."""

    def __init__(self, factories: Iterable[LiveIoTransportFactory] = ()) -> None:
        self._factories: dict[str, LiveIoTransportFactory] = {}
        for factory in factories:
            self.register(factory)

    def register(self, factory: LiveIoTransportFactory) -> None:
        """Add a factory.

        Raises:
            SettingsFailure: `io_namespace_invalid` for an empty or a taken group.
        """
        group = factory.namespace_group
        if not group or group in self._factories:
            raise SettingsFailure(
                error_info(
                    "io_namespace_invalid",
                    "a transport's namespace group cannot be registered",
                    group=group,
                    reason="taken" if group else "empty",
                )
            )
        self._factories[group] = factory

    @property
    def groups(self) -> tuple[str, ...]:
        """The registered groups, sorted."""
        return tuple(sorted(self._factories))

    def factory_for(self, namespace: str) -> LiveIoTransportFactory | None:
        """The factory whose group is the longest that owns `namespace`."""
        group = longest_group(namespace, self._factories)
        return None if group is None else self._factories[group]


class Router:
    """Transports for one attempt, made when they are first needed."""

    def __init__(self, registry: TransportRegistry, env: LiveIoEnv) -> None:
        self._registry = registry
        self._env = env
        self._made: dict[str, LiveIoTransport] = {}

    def transport_for(self, namespace: str) -> LiveIoTransport:
        """The transport that serves `namespace`.

        Raises:
            IoFailure: `io_unknown_namespace`; neither namespace nor request is echoed.
        """
        factory = self._registry.factory_for(namespace)
        if factory is None:
            raise IoFailure(
                IoError(
                    Other=error_info("io_unknown_namespace", "no transport serves that namespace")
                )
            )
        group = factory.namespace_group
        if group not in self._made:
            self._made[group] = factory.make(self._env)
        return self._made[group]
