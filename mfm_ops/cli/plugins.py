"""Keeps other packages' pydantic plugins out of the command, and spares it the search for them.

They would see what mfm validates. pydantic can be told to load none, but reads in the module that
would load them that it was told, and that module imports the machinery for packages' metadata
first: a fifteenth of a short command's time.
"""

import os
import sys
from types import ModuleType

__all__ = ["switch_off"]

_LOADER = "pydantic.plugin._loader"


def switch_off() -> None:
    """Let pydantic load no plugins; call it before pydantic is imported.

    Whoever has set PYDANTIC_DISABLE_PLUGINS to something else is heeded.
    """
    if os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__") == "__all__":
        sys.modules.setdefault(_LOADER, _NoLoader(_LOADER))


class _NoLoader(ModuleType):
    """In the place of pydantic's loader: the one answer that it would give."""

    def get_plugins(self) -> tuple[()]:
        """No plugins."""
        return ()

    def __getattr__(self, name: str) -> object:
        # A later pydantic may look here for more: it gets its own module.
        if name.startswith("__"):
            raise AttributeError(name)
        import importlib

        if sys.modules.get(_LOADER) is self:
            del sys.modules[_LOADER]
        return getattr(importlib.import_module(_LOADER), name)
