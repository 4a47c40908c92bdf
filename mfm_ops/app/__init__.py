"""The composition root: the only place where settings, stores, transports and ops meet."""

from mfm_ops.app.core import App, Interrupted, Outcome, RunOptions, Watch
from mfm_ops.app.workspace import Requirements

__all__ = ["App", "Interrupted", "Outcome", "Requirements", "RunOptions", "Watch"]
