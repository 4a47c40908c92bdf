"""Where settings come from, which layer wins, and what a file that was merely found may not do."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfm_ops.machine.errors import SettingsFailure
from mfm_ops.settings import Settings, load_settings
from mfm_ops.settings.keys import KEYS
from transports.policy import ExecPolicy


class Site:
    """A home, a working directory below a project, and an environment; nothing of this process."""

    def __init__(self, root: Path) -> None:
        self.home = root / "home"
        self.project = root / "project"
        self.cwd = self.project / "sub" / "dir"
        self.cwd.mkdir(parents=True)
        self.environ: dict[str, str] = {"HOME": str(self.home)}

    @property
    def user_file(self) -> Path:
        return self.home / ".config" / "mfm" / "mfm.toml"

    @property
    def found_file(self) -> Path:
        return self.project / "mfm.toml"

    def write(self, path: Path, text: str) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def load(self, options: Mapping[str, str] | None = None) -> Settings:
        return load_settings(self.environ, self.cwd, options)

    def refusal(self, options: Mapping[str, str] | None = None) -> dict[str, str]:
        with pytest.raises(SettingsFailure) as failure:
            self.load(options)
        info = failure.value.info
        assert isinstance(info.details, dict)
        return {"code": str(info.code), **info.details}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def source_of(settings: Settings, key: str) -> str:
    return next(origin.source for origin in settings.origins if origin.key == key)


def test_without_any_file_the_defaults_hold(site: Site) -> None:
    settings = site.load()
    assert settings.exec_policy == ExecPolicy()
    assert settings.store_path == site.home / ".local/state/mfm/mfm.sqlite"
    assert (settings.output_format, settings.log_level, settings.log_format) == (
        "text",
        "warning",
        "text",
    )
    assert {origin.source for origin in settings.origins} == {"default"}


def test_every_key_tells_its_origin(site: Site) -> None:
    assert [origin.key for origin in site.load().origins] == list(KEYS)


def test_the_store_follows_xdg_state_home(site: Site) -> None:
    site.environ["XDG_STATE_HOME"] = "/state"
    assert site.load().store_path == Path("/state/mfm/mfm.sqlite")


def test_a_relative_xdg_directory_is_ignored(site: Site) -> None:
    site.environ["XDG_STATE_HOME"] = "state"
    assert site.load().store_path == site.home / ".local/state/mfm/mfm.sqlite"


def test_without_home_only_the_use_of_the_store_fails(site: Site) -> None:
    del site.environ["HOME"]
    settings = site.load()
    with pytest.raises(SettingsFailure, match="settings_invalid") as failure:
        settings.require_store_path()
    assert failure.value.info.details == {
        "source": "defaults",
        "key": "store.path",
        "reason": "HOME is not set; give --store or set MFM_STORE",
    }


def test_a_store_at_a_path_that_is_not_utf8_is_refused(site: Site) -> None:
    site.environ["XDG_STATE_HOME"] = os.fsdecode(b"/var/\xff")
    with pytest.raises(SettingsFailure) as raised:
        site.load().require_store_path()
    assert isinstance(raised.value.info.details, dict)
    assert "is not UTF-8" in str(raised.value.info.details["reason"])


def test_keystores_lie_by_default_where_xdg_says_and_nobody_named_that_place(site: Site) -> None:
    settings = site.load()
    assert settings.keystore_dir == site.home / ".local/share/mfm/keystore"
    assert not settings.keystore_named
    site.environ["XDG_DATA_HOME"] = "/data"
    assert site.load().keystore_dir == Path("/data/mfm/keystore")
    del site.environ["HOME"], site.environ["XDG_DATA_HOME"]
    assert site.load().keystore_dir is None


def test_a_keystore_directory_from_file_or_environment_is_named(site: Site) -> None:
    site.write(site.user_file, '[keystore]\ndir = "~/keys"')
    assert (site.load().keystore_dir, site.load().keystore_named) == (site.home / "keys", True)
    site.environ["MFM_KEYSTORE"] = "mine"
    assert (site.load().keystore_dir, site.load().keystore_named) == (site.cwd / "mine", True)
    site.environ["MFM_KEYSTORE"] = ""
    assert site.load().keystore_dir == site.home / "keys"


def test_a_found_file_may_not_choose_the_keystores(site: Site) -> None:
    site.write(site.found_file, '[keystore]\ndir = "/others/keys"')
    assert site.refusal()["code"] == "settings_not_trusted"


def test_layers_win_in_their_order(site: Site) -> None:
    def level() -> tuple[str, str]:
        settings = site.load(options)
        return settings.log_level, source_of(settings, "log.level")

    options: dict[str, str] = {}
    site.write(site.user_file, '[log]\nlevel = "debug"')
    assert level() == ("debug", str(site.user_file))
    site.write(site.found_file, '[log]\nlevel = "info"')
    assert level() == ("info", str(site.found_file))
    named = site.write(site.home / "named.toml", '[log]\nlevel = "error"')
    site.environ["MFM_CONFIG"] = str(named)
    assert level() == ("error", str(named))
    site.environ["MFM_LOG_LEVEL"] = "debug"
    assert level() == ("debug", "environment")
    options["log.level"] = "info"
    assert level() == ("info", "option")


def test_the_option_config_wins_over_its_variable(site: Site) -> None:
    site.environ["MFM_CONFIG"] = str(site.home / "missing.toml")
    named = site.write(site.home / "named.toml", '[output]\nformat = "json"')
    assert site.load({"config": str(named)}).output_format == "json"


def test_an_empty_variable_is_as_good_as_none(site: Site) -> None:
    site.environ |= {"MFM_STORE": "", "MFM_CONFIG": "", "MFM_EXEC_SANDBOX": ""}
    assert site.load().exec_policy == ExecPolicy()
    assert source_of(site.load(), "store.path") == "default"


def test_relative_paths_start_where_they_were_written(site: Site) -> None:
    site.write(site.user_file, '[store]\npath = "here.sqlite"')
    assert site.load().store_path == site.user_file.parent / "here.sqlite"
    site.environ["MFM_STORE"] = "there.sqlite"
    assert site.load().store_path == site.cwd / "there.sqlite"


def test_a_tilde_is_the_home_directory(site: Site) -> None:
    assert site.load({"store.path": "~/x.sqlite"}).store_path == site.home / "x.sqlite"


def test_the_whole_policy_can_be_configured(site: Site) -> None:
    site.write(
        site.user_file,
        """
        [exec]
        allow_prefixes = ["/usr/bin/", "/opt/tools"]
        sandbox = "off"
        read_only_paths = ["/usr"]
        read_write_paths = ["/srv/out"]
        network = true
        [exec.limits]
        memory_mb = 64
        processes = "none"
        cpu_s = 5
        open_files = 20
        file_size_mb = 7
        [provenance]
        env_allowlist = ["LANG", "TZ"]
        """,
    )
    settings = site.load()
    assert settings.exec_policy == ExecPolicy(
        allow_prefixes=("/usr/bin", "/opt/tools"),
        sandbox="off",
        read_only_paths=("/usr",),
        read_write_paths=("/srv/out",),
        network=True,
        memory_mb=64,
        processes=None,
        cpu_s=5,
        open_files=20,
        file_size_mb=7,
    )
    assert settings.env_allowlist == ("LANG", "TZ")


def test_the_environment_can_configure_the_policy_too(site: Site) -> None:
    site.environ |= {
        "MFM_EXEC_ALLOW_PREFIXES": "/usr/bin:/opt",
        "MFM_EXEC_SANDBOX": "off",
        "MFM_EXEC_NETWORK": "true",
        "MFM_EXEC_LIMITS_MEMORY_MB": "64",
        "MFM_EXEC_LIMITS_CPU_S": "none",
        "MFM_PROVENANCE_ENV_ALLOWLIST": "LANG:TZ",
    }
    settings = site.load()
    assert settings.exec_policy == ExecPolicy(
        allow_prefixes=("/usr/bin", "/opt"),
        sandbox="off",
        network=True,
        memory_mb=64,
        cpu_s=None,
    )
    assert settings.env_allowlist == ("LANG", "TZ")


def test_a_misspelt_variable_of_the_policy_is_refused(site: Site) -> None:
    site.environ["MFM_EXEC_LIMITS_MEMORY"] = "64"
    assert site.refusal() == {
        "code": "settings_invalid",
        "source": "environment",
        "key": "MFM_EXEC_LIMITS_MEMORY",
        "reason": "no such setting; did you mean MFM_EXEC_LIMITS_MEMORY_MB?",
    }


@pytest.mark.parametrize(
    ("text", "key", "reason"),
    [
        ("[exec]\nalow_prefixes = []", "exec.alow_prefixes", "no such setting; did you mean"),
        ("[nonsense]\nx = 1", "nonsense.x", "no such setting"),
        ("exec = 3", "exec", "no such setting"),
        ('[exec]\nallow_prefixes = "/usr"', "exec.allow_prefixes", "must be a list of paths"),
        ("[exec]\nallow_prefixes = [1]", "exec.allow_prefixes", "must be a list of paths"),
        ('[exec]\nallow_prefixes = ["usr"]', "exec.allow_prefixes", "absolute paths"),
        ('[exec]\nallow_prefixes = ["/a/../b"]', "exec.allow_prefixes", "normalised"),
        ('[exec]\nread_only_paths = ["/proc"]', "exec.read_only_paths", "must not name /proc"),
        ("[exec]\nsandbox = false", "exec.sandbox", "bubblewrap"),
        ("[exec]\nsandbox = []", "exec.sandbox", "bubblewrap"),
        ("[exec]\nnetwork = 1", "exec.network", "must be true or false"),
        ('[exec]\nnetwork = "true"', "exec.network", "must be true or false"),
        ("[exec.limits]\nmemory_mb = 0", "exec.limits.memory_mb", "positive integer"),
        ("[exec.limits]\nmemory_mb = -1", "exec.limits.memory_mb", "positive integer"),
        ("[exec.limits]\nmemory_mb = 1.5", "exec.limits.memory_mb", "positive integer"),
        ("[exec.limits]\nmemory_mb = true", "exec.limits.memory_mb", "positive integer"),
        ('[exec.limits]\nmemory_mb = "64"', "exec.limits.memory_mb", "positive integer"),
        ("[exec]\nlimits = 3", "exec.limits", "no such setting"),
        ("[exec.limits.memory_mb]\nx = 1", "exec.limits.memory_mb.x", "no such setting"),
        ("[store]\npath = 3", "store.path", "must be a path"),
        ('[store]\npath = ""', "store.path", "must be a path"),
        ('[output]\nformat = "yaml"', "output.format", "must be one of text, json"),
        ("[log]\nlevel = []", "log.level", "must be one of debug"),
        ('[provenance]\nenv_allowlist = ["A B"]', "provenance.env_allowlist", "names"),
        ("\nx = ]", "", "not TOML, see line 2, column 5"),
        (f"x = 1{'0' * 5000}", "", "a number has too many digits"),
        (f"{'.'.join('x' * 3000)} = 1", "", "nested too deeply"),
    ],
)
def test_a_bad_setting_names_file_key_and_reason(
    site: Site, text: str, key: str, reason: str
) -> None:
    site.write(site.user_file, text)
    refusal = site.refusal()
    assert (refusal["code"], refusal["source"], refusal["key"]) == (
        "settings_invalid",
        str(site.user_file),
        key,
    )
    assert reason in refusal["reason"]


def test_a_bad_option_names_the_option_as_its_source(site: Site) -> None:
    assert site.refusal({"output.format": "yaml"})["source"] == "option"


def test_a_file_that_was_named_must_exist(site: Site) -> None:
    missing = str(site.home / "missing.toml")
    assert site.refusal({"config": missing}) == {
        "code": "settings_invalid",
        "source": missing,
        "key": "",
        "reason": "No such file or directory",
    }


def test_an_option_that_names_no_file_is_refused(site: Site) -> None:
    for nothing in ("", "a\0b"):
        refusal = site.refusal({"config": nothing})
        assert (refusal["key"], refusal["reason"]) == ("config", "must be a path")


def test_a_link_that_leads_nowhere_is_not_passed_over(site: Site) -> None:
    for file in (site.user_file, site.found_file):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.symlink_to("gone.toml")
        assert site.refusal()["source"] == str(file)
        file.unlink()


def test_in_a_directory_that_was_removed_only_absolute_paths_mean_something(site: Site) -> None:
    site.write(site.user_file, "[exec.limits]\nmemory_mb = 7")
    settings = load_settings(site.environ, None, {"store.path": "/absolute"})
    assert (settings.store_path, settings.exec_policy.memory_mb) == (Path("/absolute"), 7)
    for key in ("store.path", "config"):
        with pytest.raises(SettingsFailure) as raised:
            load_settings(site.environ, None, {key: "relative"})
        assert isinstance(raised.value.info.details, dict)
        assert "was removed" in str(raised.value.info.details["reason"])


def test_a_fifo_does_not_block(site: Site) -> None:
    os.mkfifo(site.found_file)
    assert site.refusal()["reason"] == "not a regular file"


def test_text_that_is_not_utf8_is_refused(site: Site) -> None:
    site.found_file.write_bytes(b'x = "\xff"')
    assert site.refusal()["reason"] == "not UTF-8"


def test_a_huge_file_is_refused(site: Site) -> None:
    site.found_file.write_bytes(b"#" * (1 << 20) + b"\n")
    assert site.refusal()["reason"] == "longer than 1 MiB"


def test_deep_nesting_is_refused(site: Site) -> None:
    site.found_file.write_text("x = " + "[" * 100_000)
    assert site.refusal()["code"] == "settings_invalid"


WIDENING = [
    ("exec.allow_prefixes", '[exec]\nallow_prefixes = ["/usr"]'),
    ("exec.allow_prefixes", '[exec]\nallow_prefixes = ["/nix/store/", "/usr"]'),
    ("exec.allow_prefixes", '[exec]\nallow_prefixes = ["/nix"]'),
    ("exec.allow_prefixes", '[exec]\nallow_prefixes = ["/nix/storeevil"]'),
    ("exec.sandbox", '[exec]\nsandbox = "off"'),
    ("exec.read_only_paths", '[exec]\nread_only_paths = ["/etc"]'),
    ("exec.read_write_paths", '[exec]\nread_write_paths = ["/srv"]'),
    ("exec.network", "[exec]\nnetwork = true"),
    ("exec.limits.memory_mb", "[exec.limits]\nmemory_mb = 999999"),
    ("exec.limits.memory_mb", '[exec.limits]\nmemory_mb = "none"'),
    ("exec.limits.processes", "[exec.limits]\nprocesses = 513"),
    ("provenance.env_allowlist", '[provenance]\nenv_allowlist = ["PATH"]'),
    ("store.path", '[store]\npath = "x.sqlite"'),
]


@pytest.mark.parametrize(("key", "text"), WIDENING)
def test_a_found_file_cannot_widen(site: Site, key: str, text: str) -> None:
    site.write(site.found_file, text)
    assert site.refusal() == {
        "code": "settings_not_trusted",
        "source": str(site.found_file),
        "key": key,
    }


@pytest.mark.parametrize(("key", "text"), WIDENING)
def test_the_users_own_file_can_widen(site: Site, key: str, text: str) -> None:
    site.write(site.user_file, text)
    assert source_of(site.load(), key) == str(site.user_file)


@pytest.mark.parametrize(("key", "text"), WIDENING)
def test_a_file_named_by_option_can_widen(site: Site, key: str, text: str) -> None:
    site.write(site.found_file, text)
    assert source_of(site.load({"config": str(site.found_file)}), key) == str(site.found_file)


@pytest.mark.parametrize(
    "text",
    [
        '[exec]\nallow_prefixes = ["/nix/store/abc"]',
        "[exec]\nallow_prefixes = []",
        '[exec]\nsandbox = "bubblewrap"',
        "[exec]\nnetwork = false",
        "[exec]\nread_only_paths = []",
        "[exec.limits]\nmemory_mb = 64",
        '[output]\nformat = "json"',
        '[log]\nlevel = "debug"',
    ],
)
def test_a_found_file_can_tighten_and_choose_the_display(site: Site, text: str) -> None:
    site.write(site.found_file, text)
    assert str(site.found_file) in {origin.source for origin in site.load().origins}


def test_a_found_file_narrows_what_the_user_allowed(site: Site) -> None:
    site.write(site.user_file, '[exec]\nallow_prefixes = ["/usr", "/opt"]\nsandbox = "off"')
    site.write(site.found_file, '[exec]\nallow_prefixes = ["/usr/bin"]\nsandbox = "bubblewrap"')
    policy = site.load().exec_policy
    assert (policy.allow_prefixes, policy.sandbox) == (("/usr/bin",), "bubblewrap")


def test_an_inner_file_cannot_undo_what_an_outer_one_tightened(site: Site) -> None:
    site.write(site.found_file, "[exec.limits]\nmemory_mb = 64")
    inner = site.write(site.cwd / "mfm.toml", "[exec.limits]\nmemory_mb = 32")
    assert site.load().exec_policy.memory_mb == 32
    site.write(inner, "[log]\nlevel = 'info'")
    assert site.load().exec_policy.memory_mb == 64


@pytest.mark.parametrize("key", ["read_only_paths", "read_write_paths", "allow_prefixes"])
def test_a_found_file_cannot_lead_out_by_a_link(site: Site, key: str) -> None:
    inside, outside, real = site.project / "data", site.home / "secret", site.project / "real"
    for directory in (inside, outside, real):
        directory.mkdir(parents=True)
    (inside / "out").symlink_to(outside)
    (inside / "in").symlink_to(site.project / "data" / "deep")
    (site.project / "linked").symlink_to(real)
    allowed = [str(inside), str(site.project / "linked")]
    site.write(site.user_file, f"[exec]\n{key} = {json.dumps(allowed)}")
    for kept in (inside / "in", inside / "not there", site.project / "linked" / "x"):
        site.write(site.found_file, f"[exec]\n{key} = {json.dumps([str(kept)])}")
        assert getattr(site.load().exec_policy, key) == (str(kept),)
    for led_out in (inside / "out", inside / "out" / "deeper"):
        site.write(site.found_file, f"[exec]\n{key} = {json.dumps([str(led_out)])}")
        assert site.refusal()["code"] == "settings_not_trusted"
    # Whoever may widen may also follow links.
    site.write(site.user_file, f"[exec]\n{key} = {json.dumps([*allowed, str(inside / 'out')])}")
    site.write(site.found_file, f"[exec]\n{key} = {json.dumps([str(inside / 'out')])}")
    assert getattr(site.load().exec_policy, key) == (str(inside / "out"),)


def test_a_found_file_cannot_leave_out_what_is_read_only_inside_of_what_is_writable(
    site: Site,
) -> None:
    site.write(
        site.user_file,
        '[exec]\nread_only_paths = ["/usr", "/data/keys"]\nread_write_paths = ["/data"]',
    )
    site.write(site.found_file, "[exec]\nread_only_paths = []")
    assert site.load().exec_policy.read_only_paths == ("/data/keys",)
    site.write(site.found_file, "[exec]\nread_only_paths = []\nread_write_paths = []")
    assert site.load().exec_policy.read_only_paths == ()
    site.write(
        site.user_file,
        '[exec]\nallow_prefixes = ["/data/bin", "/data", "/nix/store"]\n'
        'read_write_paths = ["/data"]',
    )
    site.write(site.found_file, '[exec]\nallow_prefixes = ["/data/bin/one"]')
    assert site.load().exec_policy.read_only_paths == ("/data/bin",)
    site.found_file.unlink()
    assert site.load().exec_policy.read_only_paths == ()


def test_a_found_file_may_repeat_what_the_environment_allows(site: Site) -> None:
    site.write(site.found_file, '[exec]\nallow_prefixes = ["/usr/bin"]')
    site.environ["MFM_EXEC_ALLOW_PREFIXES"] = "/usr"
    assert site.load().exec_policy.allow_prefixes == ("/usr",)
    site.environ["MFM_EXEC_ALLOW_PREFIXES"] = "/opt"
    assert site.refusal()["code"] == "settings_not_trusted"


def test_the_users_file_is_not_found_a_second_time(site: Site) -> None:
    site.write(site.user_file, "[exec]\nnetwork = true")
    site.cwd = site.user_file.parent
    assert site.load().exec_policy.network


PREFIXES = st.lists(
    st.sampled_from(["/", "/nix", "/nix/store", "/nix/store/a", "/nix/store/a/b", "/nix/storex"]),
    max_size=3,
)


@given(allowed=PREFIXES, wanted=PREFIXES)
def test_what_a_found_file_may_set_allows_no_further_program(
    tmp_path_factory: pytest.TempPathFactory, allowed: list[str], wanted: list[str]
) -> None:
    site = Site(tmp_path_factory.mktemp("site"))
    site.write(site.user_file, f"[exec]\nallow_prefixes = {allowed}")
    site.write(site.found_file, f"[exec]\nallow_prefixes = {wanted}")
    programs = ["/x", "/nix/y", "/nix/store/z", "/nix/store/a/c", "/nix/store/a/b/d", "/nix/storex"]

    def runs(prefixes: list[str]) -> set[str]:
        return {
            program
            for program in programs
            for prefix in prefixes
            if Path(program).is_relative_to(prefix)
        }

    try:
        settings = site.load()
    except SettingsFailure:
        assert not runs(wanted) <= runs(allowed) or set(wanted) - set(allowed)
    else:
        assert runs(list(settings.exec_policy.allow_prefixes)) <= runs(allowed)


def test_the_documentation_lists_every_setting_with_its_default(site: Site) -> None:
    document = Path(__file__).parents[2] / "docs" / "configuration.md"
    rows = {}
    for line in document.read_text(encoding="utf-8").splitlines():
        if line.startswith("| `"):
            key, variable, default, _ = (cell.strip() for cell in line.strip("| ").split(" | "))
            rows[key.strip("`")] = (variable.strip("`"), default.split("`")[1])
    assert rows.keys() == KEYS.keys()
    for origin in site.load().origins:
        variable, default = rows[origin.key]
        assert variable == KEYS[origin.key].variable
        if isinstance(origin.value, Path):
            continue
        value = list(origin.value) if isinstance(origin.value, tuple) else origin.value
        assert json.loads(default) == value
