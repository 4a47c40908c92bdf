"""Which domain events a run keeps (the contract, section 4)."""

from mfm_ops.machine.config import EventProfile
from mfm_ops.machine.events import is_engine_owned

__all__ = ["keeps"]


def keeps(profile: EventProfile, name: str) -> bool:
    """Whether a domain event called `name` is written under `profile`.

    >>> keeps(EventProfile.Minimal, "saved"), keeps(EventProfile.Minimal, "fact_recorded")
    (False, True)
    """
    return profile.variant != "Minimal" or is_engine_owned(name)
