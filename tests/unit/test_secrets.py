"""The secret scan: what it finds, what it lets pass, where it points, what it costs at worst."""

import base64
import json
import re
from random import Random
from typing import TypeVar

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mfm_ops.machine.json_rules import Json
from mfm_ops.machine.secrets import (
    REDACTED_MESSAGE,
    find_secret,
    find_secret_in_canonical,
    redact_text,
    text_has_secret,
)
from mfm_ops.machine.secrets.bip39_english import WORDS
from mfm_ops.machine.secrets.gates import ALL_OPEN, folded, gates_of, words_in
from mfm_ops.machine.secrets.names import SENSITIVE_NAMES, Strength, name_strength
from mfm_ops.machine.secrets.text import rule_in_text
from tests.corpora.classes import CLASSES
from tests.corpora.credentials import credentials, harmless_lines, harmless_values, phrase
from tests.corpora.dumps import DUMPS

_RNG = Random(20)
_CREDENTIALS = list(credentials(_RNG))
_HARMLESS = list(harmless_values(_RNG))
_GITHUB = "ghp" + "_" + "aB3dE6gH9jK2mN5pQ8sT1vW4yZ7bC0eF3hJ6"


def _canonical(value: Json) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def _at(value: Json, pointer: str) -> Json:
    for token in pointer.split("/")[1:]:
        step = token.replace("~1", "/").replace("~0", "~")
        if isinstance(value, list):
            value = value[int(step)]
        else:
            assert isinstance(value, dict)
            value = value[step]
    return value


# A bare lower-case word in the middle of a log line cannot be told from prose.
_BEYOND_REACH = {"dotenv/log", "quoted/log"}


@pytest.mark.parametrize(
    "value",
    [pytest.param(value, id=kind) for kind, value in _CREDENTIALS if kind not in _BEYOND_REACH],
)
def test_a_credential_is_found(value: Json) -> None:
    assert find_secret(value) is not None


@pytest.mark.parametrize("value", [pytest.param(value, id=kind) for kind, value in _HARMLESS])
def test_a_look_alike_passes(value: Json) -> None:
    assert find_secret(value) is None


def test_recall_over_many_draws_reaches_the_goal() -> None:
    drawn = [value for seed in range(20) for _, value in credentials(Random(seed))]
    found = sum(find_secret(value) is not None for value in drawn)
    assert found >= 0.98 * len(drawn)


def test_lines_of_real_tools_raise_hardly_an_alarm() -> None:
    lines = harmless_lines()
    assert len(lines) >= 400
    alarms = [line for line in lines if text_has_secret(line)]
    assert len(alarms) <= 0.01 * len(lines), alarms


def test_random_look_alikes_raise_no_alarm() -> None:
    drawn = [value for seed in range(40) for _, value in harmless_values(Random(seed))]
    assert [value for value in drawn if find_secret(value)] == []


@pytest.mark.parametrize(
    ("name", "strength"),
    [
        ("password", Strength.STRONG),
        ("DB_PASSWORD", Strength.STRONG),
        ("dbPassword", Strength.STRONG),
        ("dbpassword", Strength.STRONG),
        ("user password 2", Strength.STRONG),
        ("x-api-key", Strength.STRONG),
        ("private_key_hex", Strength.STRONG),
        ("secret", Strength.STRONG),
        ("Proxy-Authorization", Strength.SCHEME),
        ("github_token", Strength.RANDOM),
        ("MYSQL_PWD", Strength.GENERATED),
        ("password_file", Strength.NONE),
        ("password_policy", Strength.NONE),
        ("passwordless", Strength.NONE),
        ("api_key_id", Strength.NONE),
        ("token_count", Strength.NONE),
        ("token_type", Strength.NONE),
        ("private_key_path", Strength.NONE),
        ("public_key", Strength.NONE),
        ("has_password", Strength.NONE),
        ("fact_key", Strength.NONE),
        ("compass", Strength.NONE),
        ("", Strength.NONE),
        ("password" * 100, Strength.NONE),
    ],
)
def test_a_name_says_how_sensitive_it_is(name: str, strength: Strength) -> None:
    assert name_strength(name) is strength


def _opens(name: str) -> bool:
    return words_in(folded(name.encode()), name.encode())


def test_every_sensitive_name_opens_the_gate_for_words() -> None:
    assert [name for name in SENSITIVE_NAMES if not _opens(name)] == []


@pytest.mark.parametrize(
    ("value", "pointer", "rule"),
    [
        ({"a": [1, {"password": "x"}]}, "/a/1/password", "sensitive_key"),
        ({"a/b": {"~": {"password": "x"}}}, "/a~1b/~0/password", "sensitive_key"),
        ({"a": {_GITHUB: 1}}, "/a", "github_token"),
        ({_GITHUB: 1}, "", "github_token"),
        (_GITHUB, "", "github_token"),
        (["run", "--password", "hunter"], "/2", "sensitive_flag"),
        ([{"name": "API_KEY", "value": "abc"}], "/0/value", "sensitive_key"),
        ({"passwords": ["", "abc"]}, "/passwords/1", "sensitive_key"),
        ({"b": {"password": "x"}, "a": {"password": "y"}}, "/b/password", "sensitive_key"),
        ({"private_key": list(range(32))}, "/private_key", "sensitive_key"),
    ],
)
def test_a_finding_names_place_and_rule(value: Json, pointer: str, rule: str) -> None:
    found = find_secret(value)
    assert found is not None
    assert (found.pointer, found.rule) == (pointer, rule)


@pytest.mark.parametrize(("kind", "value"), _CREDENTIALS)
def test_a_finding_repeats_nothing_of_the_secret(kind: str, value: Json) -> None:
    found = find_secret(value)
    if found is None:
        assert kind in _BEYOND_REACH
        return
    secret = json.dumps(_at(value, found.pointer))
    shown = repr(found)
    for part in re.findall(r"[A-Za-z0-9]{12,}", secret):
        assert not re.search(r"\d", part) or part not in shown


_T = TypeVar("_T")


def _one_of(pool: list[_T]) -> st.SearchStrategy[_T]:
    """As `sampled_from`, whose printed form would hold the whole pool."""
    return st.integers(0, len(pool) - 1).map(lambda place: pool[place])


_CREDENTIAL_TEXTS = [value for _, value in _CREDENTIALS if isinstance(value, str)] + [
    text
    for kind in (*CLASSES, *DUMPS)
    if isinstance(value := kind.make(Random(kind.name)), dict)
    for text in value.values()
    if isinstance(text, str)
]
_TEXTS = st.one_of(
    st.text(max_size=30),
    _one_of(_CREDENTIAL_TEXTS),
    _one_of(harmless_lines()),
    st.sampled_from(["pass\nword=abc12345", '"', "\\", "\\n" + _GITHUB, "\n" + _GITHUB, "é\u2028"]),
)
_SPLICED = st.lists(_TEXTS, min_size=1, max_size=3).flatmap(
    lambda parts: st.sampled_from(["", " ", "\n", "\\", '"', "\t", "\x01"]).map(
        lambda between: between.join(parts)
    )
)
_NAMES = st.one_of(
    _TEXTS, st.sampled_from(["password", "api\nkey", "tok\\en", "name", "value", "kty", "d"])
)
_DOCUMENTS = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-9, 9), _SPLICED),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(_NAMES, inner, max_size=4)
    ),
    max_leaves=12,
)


@given(_DOCUMENTS)
@settings(max_examples=200, deadline=None)
def test_canonical_bytes_get_the_verdict_of_the_value(document: Json) -> None:
    data = _canonical(document)
    assert find_secret_in_canonical(data) == find_secret(orjson.loads(data))


@given(_SPLICED)
@settings(max_examples=200, deadline=None)
def test_a_shut_gate_shuts_out_no_rule(text: str) -> None:
    gates = gates_of(_canonical({"k": text}))
    assert rule_in_text(text, gates) == rule_in_text(text, ALL_OPEN)


@given(_DOCUMENTS, _one_of(_CREDENTIALS))
@settings(max_examples=200, deadline=None)
def test_a_pointer_leads_to_a_place_that_trips_by_itself_or_by_its_name(
    document: Json, credential: tuple[str, Json]
) -> None:
    value: Json = {"around": document, "planted": credential[1]}
    found = find_secret(value)
    if found is None:
        assert credential[0] in _BEYOND_REACH
        return
    _at(value, found.pointer)


def test_a_recovery_phrase_counts_with_a_word_mistyped() -> None:
    words = phrase(Random(3)).split()
    for other in WORDS[:20]:
        assert text_has_secret(" ".join([*words[:11], other])) == "bip39_phrase"


def test_a_recovery_phrase_is_found_among_other_listed_words() -> None:
    assert text_has_secret("wallet secret phrase " + phrase(Random(4))) == "bip39_phrase"


@pytest.mark.parametrize(
    "words",
    [
        WORDS,
        WORDS[100:112],
        phrase(Random(5)).split()[:11],
        ["the", "quick", "brown", "fox", "jumps", "over", "lazy", "dogs", "while", "cats", "sit"],
    ],
)
def test_words_that_are_no_recovery_phrase_pass(words: list[str]) -> None:
    assert text_has_secret(" ".join(words)) is None
    assert find_secret(list(words)) is None


def test_the_word_list_is_that_of_bip_39() -> None:
    assert len(WORDS) == len(set(WORDS)) == 2048
    assert list(WORDS) == sorted(WORDS)
    assert (WORDS[0], WORDS[-1]) == ("abandon", "zoo")


_MIB = 1 << 20


@pytest.mark.parametrize(
    "piece",
    [
        *("a", "password=", "password: ", "abandon ", "zoo abandon ", "--password ", "://", ":@"),
        *("://a:", "eyJ.", "secret\n", "Bearer ", "-----BEGIN PRIVATE KEY-----", 'password="'),
        *("mysql -p ", "curl -u ", "echo a | sudo ", "Cookie: ", "<password>", "%2525", "SUlJ"),
        *(
            "://::::",
            ":5432:a:b:",
            "?key=",
            "password:\n",
            " -p ",
            "https://a/",
            "[1,2,",
            "stringData:\n a: b\n",
            "add act age ",
            "key_A1b2C3d4E5f6G7h8I9 ",
            '{"a":',
        ),
        *("passwordpassword_", "abc " * 11 + "x ", "A1b2-", "\\", "token token='", "5KJv"),
    ],
)
def test_a_hostile_mebibyte_is_read_in_linear_time(piece: str) -> None:
    text = piece * (_MIB // len(piece))
    find_secret_in_canonical(_canonical({"text": text}))
    text_has_secret(text)


@pytest.mark.parametrize(
    ("opening", "piece"),
    [
        *(("mysql -p ", "a/"), ("htpasswd -", "b"), ("sudo -S | echo", " "), (" -p 7z", "-")),
        *(("sudo -S | echo a", " "), ("-p curl ", "-u a "), ("curl", " "), ("login", " ")),
        *(("token", " "), ("Cookie: ", "a=b;"), ("<a>", " "), ("password=", "\\'"), ("a", " ")),
        *(("name: a", "\n"), ("identified by", " "), ("define(", " ")),
        ("-----BEGIN PRIVATE KEY-----", "\n"),
    ],
)
def test_one_long_command_is_read_in_linear_time(opening: str, piece: str) -> None:
    text_has_secret(opening + piece * (_MIB // len(piece)))


def test_depth_beyond_the_interpreters_stack_is_scanned() -> None:
    value: Json = {"password": "x"}
    for _ in range(50_000):
        value = [value]
    found = find_secret(value)
    assert found is not None
    assert found.pointer.endswith("/0/password")


def test_a_message_with_a_secret_is_replaced_whole() -> None:
    message = "could not log in with " + _GITHUB
    assert redact_text(message) == REDACTED_MESSAGE
    assert redact_text("could not log in") == "could not log in"
    assert text_has_secret(REDACTED_MESSAGE) is None


def test_basic_credentials_must_decode_to_user_and_password() -> None:
    good = base64.b64encode(b"joe:sesame").decode()
    assert text_has_secret("Basic " + good) == "basic_auth"
    assert text_has_secret("Basic functionality") is None
