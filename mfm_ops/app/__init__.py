"""The composition root: the only place where settings, stores, transports and ops meet."""

from mfm_ops.app.core import App, Interrupted, Outcome, RunOptions, Watch

__all__ = ["App", "Interrupted", "Outcome", "RunOptions", "Watch"]
