"""App refs: which forms there are, what an allowlist entry covers, and what `path:.` becomes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transports.nix_refs import (
    RefError,
    Workspace,
    flake_target,
    is_plausible_entry,
    parse_app_ref,
    require_allowed,
)

REV = "25f538306313eae3927264466c70d7001dcea1df"
DEFAULT = ("github:willyrgf/mfm",)


def refusal(text: str, allowlist: tuple[str, ...] = DEFAULT) -> str | None:
    """Why `text` may not be resolved; None where it may."""
    try:
        require_allowed(parse_app_ref(text), allowlist)
    except RefError as refused:
        return refused.reason
    return None


@pytest.mark.parametrize(
    "text",
    [
        "github:owner/repo#app",
        "github:owner/repo/main#app",
        f"github:owner/repo/{REV}#app",
        f"github:owner/repo?rev={REV}#app",
        "gitlab:group/project#app",
        "sourcehut:~owner/repo#app",
        "git+https://example.com/repo?ref=release/1.0#app",
        "git+https://example.com:8443/group/repo.git#app",
        "git+ssh://git@example.com/repo#app",
        "git+file:///srv/repo?dir=tools#app",
        "git+file:/srv/repo#app",
        "https://example.com/archive.tar.gz#app",
        "file:///srv/archive.tar.gz#app",
        "tarball+https://example.com/archive#app",
        "path:.#app",
        "path:./tools/x#app",
        "path:/srv/flake#app",
        "path:.#an-app_2+x",
    ],
)
def test_a_ref_has_an_explicit_scheme_and_a_name(text: str) -> None:
    assert parse_app_ref(text).text == text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("nixpkgs#hello", "scheme"),
        ("flake:nixpkgs#hello", "scheme"),
        ("indirect:nixpkgs#hello", "scheme"),
        (".#hello", "scheme"),
        ("/srv/flake#hello", "scheme"),
        ("hg+https://example.com/x#hello", "scheme"),
        ("file:///etc/passwd#hello", "scheme"),
        ("GITHUB:owner/repo#hello", "scheme"),
        ("--option#hello", "scheme"),
        ("github:owner/repo", "app_name"),
        ("github:owner/repo#", "app_name"),
        ("github:owner/repo#a.b", "app_name"),
        ("github:owner/repo#a#b", "app_name"),
        ("github:owner/repo#-x", "app_name"),
        ("github:owner/repo#a?x=y", "app_name"),
        ("github:owner/repo#a^out", "character"),
        ("github:owner/repo#${x}", "character"),
        ('github:owner/repo#"a"', "character"),
        ("github:owner/repo --option x y#a", "character"),
        ("github:owner/repo\n#a", "character"),
        ("github:owner/repo#a\n", "character"),
        ("github:owner/repo\0#a", "character"),
        ("github:owner/%2e%2e/repo#a", "character"),
        ("git+https://example.com/r\\x#a", "character"),
        ("github:ównër/repo#a", "character"),
        ("github:owner#a", "location"),
        ("github:owner/../repo#a", "location"),
        ("github:owner//repo#a", "location"),
        ("github:owner/repo/#a", "location"),
        ("github:owner/./repo#a", "location"),
        ("github:owner/-x#a", "location"),
        ("github:owner@host/repo#a", "location"),
        ("git+https:example.com/repo#a", "location"),
        ("git+https:///repo#a", "location"),
        ("git+https://example.com#a", "location"),
        ("git+https://user@example.com/repo#a", "location"),
        ("git+https://example.com/a/../b#a", "location"),
        ("git+ssh://-oProxyCommand=x/repo#a", "location"),
        ("git+ssh://git@-oProxyCommand/repo#a", "location"),
        ("git+ssh://a@b@example.com/repo#a", "location"),
        ("git+file://host/repo#a", "location"),
        ("git+file:repo#a", "location"),
        ("git+file:////srv#a", "location"),
        ("git+file:///srv/../etc#a", "location"),
        ("path:#a", "location"),
        ("path:..#a", "location"),
        ("path:../x#a", "location"),
        ("path:./../x#a", "location"),
        ("path:./#a", "location"),
        ("path:x#a", "location"),
        ("path://srv#a", "location"),
        ("github:owner/repo?#a", "parameter"),
        ("github:owner/repo?rev#a", "parameter"),
        ("github:owner/repo?rev=main#a", "parameter"),
        (f"github:owner/repo?rev={REV}&rev={REV}#a", "parameter"),
        ("github:owner/repo?ref=a..b#a", "parameter"),
        ("github:owner/repo?ref=--upload-pack=x#a", "parameter"),
        ("github:owner/repo?dir=../x#a", "parameter"),
        ("github:owner/repo?dir=/x#a", "parameter"),
    ],
)
def test_what_could_mean_something_else_is_no_ref(text: str, reason: str) -> None:
    with pytest.raises(RefError) as caught:
        parse_app_ref(text)
    assert caught.value.reason == reason


def test_a_ref_of_any_length_is_not_looked_at() -> None:
    with pytest.raises(RefError):
        parse_app_ref(f"github:owner/{'r' * 3000}#a")


@pytest.mark.parametrize(
    "text",
    [
        "github:willyrgf/mfm#app",
        "github:willyrgf/mfm/main#app",
        f"github:willyrgf/mfm/{REV}#app",
        f"github:willyrgf/mfm?rev={REV}#app",
        "github:willyrgf/mfm?ref=main#app",
        f"github:willyrgf/mfm?ref=main&rev={REV}#app",
    ],
)
def test_an_entry_covers_its_flake_at_every_revision(text: str) -> None:
    assert refusal(text) is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("github:willyrgf/mfm-evil#app", "not_in_allowlist"),
        ("github:willyrgf/mfmevil#app", "not_in_allowlist"),
        ("github:willyrgf/mf#app", "not_in_allowlist"),
        ("github:other/mfm#app", "not_in_allowlist"),
        ("gitlab:willyrgf/mfm#app", "not_in_allowlist"),
        ("git+https://github.com/willyrgf/mfm#app", "not_in_allowlist"),
        ("github:willyrgf/mfm?dir=other#app", "parameter"),
        ("github:willyrgf/mfm?host=evil.example#app", "parameter"),
        ("github:willyrgf/mfm?narHash=sha256-AAAA=#app", "parameter"),
        (f"github:willyrgf/mfm?rev={REV}&host=evil.example#app", "parameter"),
        ("github:willyrgf/mfm/main?dir=other#app", "parameter"),
    ],
)
def test_an_entry_covers_nothing_that_only_looks_alike(text: str, reason: str) -> None:
    assert refusal(text) == reason


def test_an_entry_may_be_one_app_and_then_covers_that_one() -> None:
    allowlist = ("github:owner/repo#app",)
    assert refusal("github:owner/repo#app", allowlist) is None
    assert refusal("github:owner/repo#apple", allowlist) == "not_in_allowlist"
    assert refusal("github:owner/repo#other", allowlist) == "not_in_allowlist"


def test_an_entry_with_parameters_covers_just_these() -> None:
    allowlist = ("git+https://example.com/r?dir=a",)
    assert refusal("git+https://example.com/r?dir=a#x", allowlist) is None
    assert refusal("git+https://example.com/r?dir=a/b#x", allowlist) == "parameter"
    assert refusal(f"git+https://example.com/r?dir=a&rev={REV}#x", allowlist) == "not_in_allowlist"
    assert refusal("git+https://example.com/r#x", allowlist) == "not_in_allowlist"


def test_where_no_version_control_answers_a_revision_is_a_mere_claim() -> None:
    assert refusal(f"path:/srv/f?rev={REV}#x", ("path:/srv/f",)) == "parameter"
    archive = "https://example.com/a.tar.gz"
    assert refusal(f"{archive}?rev={REV}#x", (archive,)) == "parameter"
    assert refusal(f"{archive}#x", (archive,)) is None


def test_an_entry_may_be_a_directory_of_flakes() -> None:
    assert refusal("path:/srv/flakes/a#x", ("path:/srv/flakes",)) is None
    assert refusal("path:/srv/flakes2#x", ("path:/srv/flakes",)) == "not_in_allowlist"
    assert refusal("path:./tools#x", ("path:.",)) is None
    assert refusal("path:/srv#x", ("path:.",)) == "not_in_allowlist"


def test_an_empty_allowlist_covers_nothing() -> None:
    assert refusal("github:willyrgf/mfm#app", ()) == "not_in_allowlist"
    assert refusal("github:willyrgf/mfm#app", ("",)) == "not_in_allowlist"


@given(
    st.sampled_from(DEFAULT),
    st.text(alphabet="abc./?#&=@%:-+~1" + "\n ", max_size=30),
)
def test_whatever_follows_an_entry_it_stays_in_the_repository(entry: str, rest: str) -> None:
    text = entry + rest
    if refusal(text) is None:
        ref = parse_app_ref(text)
        owner_and_repo = ref.flake.partition("?")[0].split("/")[:2]
        assert "/".join(owner_and_repo) == entry
        assert ref.parameters.keys() <= {"ref", "rev"}


@pytest.mark.parametrize(
    ("entry", "plausible"),
    [
        ("github:willyrgf/mfm", True),
        ("github:willyrgf", True),
        ("path:.", True),
        ("git+file:///srv/x#app", True),
        ("nixpkgs", False),
        ("path:", False),
        ("", False),
        ("git+file:///srv/my repo", False),
    ],
)
def test_an_entry_that_could_allow_nothing_is_told_from_others(entry: str, plausible: bool) -> None:
    assert is_plausible_entry(entry) is plausible


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("tarball+file:///a.tar.gz#x", "file:///a.tar.gz"),
        ("tarball+https://h/a.tgz?dir=d#x", "https://h/a.tgz?dir=d"),
        ("tarball+https://h/a#x", "tarball+https://h/a"),
        ("file:///a.zip#x", "file:///a.zip"),
    ],
)
def test_an_archive_is_named_as_any_nix_knows_it(text: str, target: str) -> None:
    assert flake_target(parse_app_ref(text), None) == target


@pytest.mark.parametrize(
    ("text", "workspace", "target"),
    [
        ("path:.#x", Workspace("/srv/w", "/srv/w"), "git+file:///srv/w"),
        ("path:./a/b#x", Workspace("/srv/w", "/srv/w"), "git+file:///srv/w?dir=a/b"),
        ("path:.#x", Workspace("/srv/w/sub", "/srv/w"), "git+file:///srv/w?dir=sub"),
        ("path:.#x", Workspace("/srv/w", "/srv/w", True), "git+file:///srv/w?shallow=1"),
        ("path:./a#x", Workspace("/w", "/w", True), "git+file:///w?dir=a&shallow=1"),
        ("path:.#x", Workspace("/srv/w", None), "path:/srv/w"),
        ("path:./a#x", Workspace("/srv/w", None), "path:/srv/w/a"),
        ("path:.#x", Workspace("/a+b (c)/ü", "/a+b (c)"), "git+file:///a+b%20(c)?dir=%C3%BC"),
        ("path:.#x", Workspace("/srv/a#b?c%", None), "path:/srv/a%23b%3Fc%25"),
        ("path:/abs#x", Workspace("/srv/w", None), "path:/abs"),
        ("github:o/r#x", None, "github:o/r"),
    ],
)
def test_nix_is_given_the_workspace_where_a_ref_is_relative(
    text: str, workspace: Workspace | None, target: str
) -> None:
    assert flake_target(parse_app_ref(text), workspace) == target


def test_without_a_workspace_a_relative_ref_means_nothing() -> None:
    with pytest.raises(RefError) as caught:
        flake_target(parse_app_ref("path:.#x"), None)
    assert caught.value.reason == "workspace_unknown"
