"""mfm: operations that are recorded, sandboxed and replayable."""

__version__ = "0.1.0"
