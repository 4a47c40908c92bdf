"""The secret scan against the labelled corpora, and the rules that they led to, one by one."""

import base64
import json
import urllib.parse
from random import Random

import pytest

from mfm_ops.machine.json_rules import Json
from mfm_ops.machine.secrets import find_secret, text_has_secret
from mfm_ops.machine.secrets.encoded import MAX_LAYERS
from tests.corpora.all_kinds import ALL_KINDS
from tests.corpora.class_lookalikes import lookalikes
from tests.corpora.classes import CLASSES
from tests.corpora.columns import COLUMNS
from tests.corpora.draws import fill, phrase
from tests.corpora.dumps import DUMPS
from tests.corpora.kinds import is_held_out
from tests.corpora.measure import false_alarms, is_found, recall
from tests.corpora.tool_output import tool_outputs

_PASSWORD = "Tasono" + "457Qx"


def _token() -> str:
    return fill(Random(2), "ghp_{36:a}")


@pytest.mark.parametrize("held_out", [False, True])
def test_recall_reaches_the_goal_in_either_half(held_out: bool) -> None:
    score = recall((kind for kind in ALL_KINDS if is_held_out(kind.name) is held_out), rounds=3)
    assert score.share >= 0.95, score.by_kind


@pytest.mark.parametrize("held_out", [False, True])
def test_false_alarms_stay_under_the_goal_in_either_half(held_out: bool) -> None:
    score = false_alarms(output for output in tool_outputs() if output.held_out is held_out)
    assert score.samples >= 300
    assert score.share <= 0.02, score.by_kind


def test_every_class_is_found_in_its_stored_form_as_in_its_own() -> None:
    classes = (*CLASSES, *COLUMNS, *DUMPS)
    score = recall(classes, rounds=12)
    assert score.share >= 0.97, score.by_kind
    for kind in classes:
        value = kind.make(Random(kind.name))
        assert is_found(value) is (find_secret(value) is not None), kind.name


def _damaged(rng: Random, value: Json) -> Json:
    """`value` with a few characters of its texts cut out or exchanged."""
    if isinstance(value, dict):
        return {key: _damaged(rng, member) for key, member in value.items()}
    if isinstance(value, list):
        return [_damaged(rng, item) for item in value]
    if isinstance(value, str):
        for _ in range(rng.randrange(3)):
            at = rng.randrange(len(value) + 1)
            mark = rng.choice(("", " ", "\n", "\t", '"', "'", "A"))
            value = value[:at] + mark + value[at + rng.randrange(6) :]
    return value


def test_what_is_left_of_a_damaged_secret_gets_one_verdict_in_either_form() -> None:
    rng = Random(7)
    drawn = [_damaged(rng, rng.choice(DUMPS).make(rng)) for _ in range(1500)]
    assert [value for value in drawn if is_found(value) is not bool(find_secret(value))] == []


def test_what_stands_in_the_places_of_secrets_and_is_none_passes() -> None:
    drawn = [value for seed in range(5) for value in lookalikes(Random(seed))]
    assert [value for value in drawn if is_found(value) or find_secret(value)] == []


def test_every_kind_names_its_source_and_no_two_share_a_name() -> None:
    assert all(kind.source for kind in ALL_KINDS)
    assert len({kind.name for kind in ALL_KINDS}) == len(ALL_KINDS)


def test_a_kind_draws_the_same_from_the_same_seed() -> None:
    for kind in ALL_KINDS:
        assert kind.make(Random(kind.name)) == kind.make(Random(kind.name))


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (f"mysql -u root -p{_PASSWORD} shop", "command_password"),
        (f"/usr/bin/redis-cli -a {_PASSWORD} ping", "command_password"),
        (f"docker login -u jo -p {_PASSWORD}", "command_password"),
        (f"curl -s -u jo:{_PASSWORD} https://x.example", "command_password"),
        (f"echo {_PASSWORD} | sudo -S true", "command_password"),
        (f"db1:5432:prod:app:{_PASSWORD}", "pgpass_password"),
        ("jo:$y$j9T$abcdefghijklmnopqrstu1$0123456789abcdefghij:19700:0:::", "password_hash"),
        ("https://x.example/a?key=" + fill(Random(1), "{40:a}"), "signed_url"),
        (f"<password>{_PASSWORD}</password>", "assigned_secret"),
        (f"define('DB_PASSWORD', '{_PASSWORD}');", "assigned_secret"),
        (f"password: >-\n    {_PASSWORD}\n", "assigned_secret"),
        ("Cookie: theme=dark; sid=" + fill(Random(1), "{32:l}"), "assigned_secret"),
        (f"machine x login jo password {_PASSWORD}", "assigned_secret"),
        ("https://" + fill(Random(1), "{40:h}") + "@git.example/a.git", "url_password"),
        (fill(Random(1), "acme_live_{24:a}"), "issued_token"),
        ("-".join(phrase(Random(1), 12)), "bip39_phrase"),
    ],
)
def test_a_place_or_a_shape_tells(text: str, rule: str) -> None:
    assert text_has_secret(text) == rule


@pytest.mark.parametrize(
    "text",
    [
        *(
            "mysql -p shop",
            "mysql -p$MYSQL_PWD shop",
            "redis-cli -a <password>",
            "ssh -p 2222 host",
        ),
        *("mkdir -p build/out2", "docker run -p 8080:80 nginx:1", "curl -u user:password x"),
        *("echo hello | sudo tee x", "src/app.py:5432:def f:x", "root:x:0:0:root:/root:/bin/bash"),
        *("https://x.example/a?key=name&b=2", "<password>secret</password>", "password: >-\n  ask"),
        *("Cookie: theme=dark; lang=en", "https://0123456789abcdef0123@o1.ingest.sentry.io/2"),
        *("some_module_WithCamelCaseNamesThatGoOn2", "sha256-" + "aB3" * 14 + "=", "key-rotation"),
        *("cache_key_0123456789abcdef0123456789abcdef", "pk_live_" + "aB3dE6gH9" * 3),
    ],
)
def test_what_only_looks_alike_passes(text: str) -> None:
    assert text_has_secret(text) is None


@pytest.mark.parametrize("layers", range(1, MAX_LAYERS + 1))
@pytest.mark.parametrize("wrap", ["base64", "json", "percent", "mixed"])
def test_a_secret_is_found_under_every_layer(wrap: str, layers: int) -> None:
    text = f"use {_token()} or leave"
    for layer in range(layers):
        way = ("base64", "json", "percent")[layer % 3] if wrap == "mixed" else wrap
        if way == "base64":
            text = base64.b64encode(text.encode()).decode()
        elif way == "json":
            text = json.dumps({"inner": text})
        else:
            text = urllib.parse.quote(text, safe="").replace("_", "%5F")
    assert find_secret({"outer": text}) is not None


@pytest.mark.parametrize("data", [b"plain words in a file\n" * 3, bytes(range(256))])
def test_encoded_data_without_a_secret_passes(data: bytes) -> None:
    for text in (base64.b64encode(data).decode(), data.hex(), base64.b32encode(data).decode()):
        assert find_secret({"data": text}) is None


def test_a_command_in_an_argument_list_is_named_as_the_list() -> None:
    argv: list[Json] = ["mysql", "-u", "root", f"-p{_PASSWORD}"]
    found = find_secret({"step": {"argv": argv}})
    assert found is not None
    assert (found.pointer, found.rule) == ("/step/argv", "command_password")
