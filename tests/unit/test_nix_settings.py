"""The settings of `[nix]`: defaults, trust, and their place in the stored policy."""

from pathlib import Path

import pytest

from mfm_ops.machine.errors import SettingsFailure
from mfm_ops.settings import Settings, load_settings


class Site:
    def __init__(self, root: Path) -> None:
        self.cwd = root / "project"
        self.cwd.mkdir()
        self.found = self.cwd / "mfm.toml"
        self.own = root / "home/.config/mfm/mfm.toml"
        self.own.parent.mkdir(parents=True)
        self.environ = {"HOME": str(root / "home")}

    def load(self) -> Settings:
        return load_settings(self.environ, self.cwd)

    def refusal(self) -> str:
        with pytest.raises(SettingsFailure) as caught:
            self.load()
        return str(caught.value.info.code)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_by_default_dirty_trees_are_refused_and_nix_is_the_first_on_path(site: Site) -> None:
    policy = site.load().nix_policy
    assert policy == (None, False, False)


def test_the_users_own_file_may_allow_dirty_trees(site: Site) -> None:
    site.own.write_text("[nix]\nallow_dirty = true\n")
    assert site.load().nix_policy.allow_dirty


@pytest.mark.parametrize("line", ["allow_dirty = true", 'program = "/usr/local/bin/nix"'])
def test_a_found_file_may_not_widen(site: Site, line: str) -> None:
    site.found.write_text(f"[nix]\n{line}\n")
    assert site.refusal() == "settings_not_trusted"


def test_a_found_file_may_not_drop_the_demand_for_a_revision(site: Site) -> None:
    site.own.write_text("[nix]\nrequire_locked_rev = true\n")
    site.found.write_text("[nix]\nrequire_locked_rev = false\n")
    assert site.refusal() == "settings_not_trusted"


def test_a_found_file_may_tighten(site: Site) -> None:
    site.own.write_text("[nix]\nallow_dirty = true\n")
    site.found.write_text("[nix]\nallow_dirty = false\nrequire_locked_rev = true\n")
    policy = site.load().nix_policy
    assert (policy.allow_dirty, policy.require_locked_rev) == (False, True)


@pytest.mark.parametrize("line", ["allow_dirty = 1", 'require_locked_rev = "yes"', "program = ''"])
def test_a_value_of_another_type_is_refused(site: Site, line: str) -> None:
    site.own.write_text(f"[nix]\n{line}\n")
    assert site.refusal() == "settings_invalid"


def test_a_misspelt_variable_is_refused(site: Site) -> None:
    site.environ["MFM_NIX_REQUIRE_LOCKED"] = "true"
    assert site.refusal() == "settings_invalid"


def test_flags_are_read_from_the_environment(site: Site) -> None:
    site.environ["MFM_NIX_ALLOW_DIRTY"] = "true"
    site.environ["MFM_NIX_PROGRAM"] = "bin/nix"
    policy = site.load().nix_policy
    assert policy.allow_dirty
    assert policy.program == str(site.cwd / "bin/nix")


def test_the_stored_policy_says_how_flakes_are_resolved(site: Site) -> None:
    stored = site.load().site_policy()
    assert stored["nix"] == {"program": None, "allow_dirty": False, "require_locked_rev": False}
    assert stored["sandbox"] == "bubblewrap"
