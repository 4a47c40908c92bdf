"""The site's settings, read once into one frozen object; see `layers` and `keys`."""

from mfm_ops.settings.layers import CONFIG_NAME, Origin, Settings, load_settings

__all__ = ["CONFIG_NAME", "Origin", "Settings", "load_settings"]
