"""What may be shown of a keystore file, from its name and bytes alone."""

import json
import os
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mfm_ops.machine.canonical import canonical_json_bytes
from transports.keystore_format import MAX_FILE_BYTES, Entry, entry_of, name_facts
from transports.keystore_warnings import REASONS, KeystoreRefused, Reason, printable, warning

VECTORS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parent.parent / "keystores" / "vectors.json").read_text()
)
ADDRESS = "5aaeb6053f3e94c9b9a09f33669435e7ef1beaed"
CHECKSUMMED = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"
UUID = "3198bc9c-6672-5ab3-d995-4942343ae5b6"
CANARIES = {name: f"ca9a4{name}" for name in ("ciphertext", "mac", "salt", "iv")}


def document(**changes: Any) -> dict[str, Any]:
    """A sound keystore whose encrypted parts are canaries; a change to None removes the field."""
    keystore = {
        "address": ADDRESS,
        "crypto": {
            "cipher": "aes-128-ctr",
            "cipherparams": {"iv": CANARIES["iv"]},
            "ciphertext": CANARIES["ciphertext"],
            "kdf": "scrypt",
            "kdfparams": {"dklen": 32, "n": 2, "p": 1, "r": 8, "salt": CANARIES["salt"]},
            "mac": CANARIES["mac"],
        },
        "id": UUID,
        "version": 3,
    }
    return {key: value for key, value in (keystore | changes).items() if value is not None}


def crypto(**changes: Any) -> dict[str, Any]:
    section: dict[str, Any] = document()["crypto"]
    return {key: value for key, value in (section | changes).items() if value is not None}


def entry(keystore: Any, file: str = "main") -> Entry:
    return entry_of(file, json.dumps(keystore).encode())[0]


def refusal(data: bytes | dict[str, Any], file: str = "main") -> Reason:
    content = data if isinstance(data, bytes) else json.dumps(data).encode()
    with pytest.raises(KeystoreRefused) as refused:
        entry_of(file, content)
    return refused.value.reason


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["file"])
def test_published_keystores_are_read_as_their_tools_mean_them(vector: dict[str, Any]) -> None:
    if "reason" in vector:
        assert refusal(vector["document"], vector["file"]) == vector["reason"]
    else:
        assert entry(vector["document"], vector["file"]) == vector["entry"]


@pytest.mark.parametrize(
    ("file", "created", "address", "label"),
    [
        (
            f"UTC--2024-01-02T03-04-05.678901234Z--{ADDRESS}",
            "2024-01-02T03:04:05.678901234Z",
            ADDRESS,
            None,
        ),
        (
            f"UTC--2024-01-02T03:04:05.678Z--{ADDRESS}.json",
            "2024-01-02T03:04:05.678Z",
            ADDRESS,
            None,
        ),
        (f"UTC--2024-01-02T03-04-05Z--{UUID}", "2024-01-02T03:04:05Z", None, None),
        (f"UTC--2024-02-30T03-04-05Z--{ADDRESS}", None, ADDRESS, None),
        (ADDRESS, None, ADDRESS, None),
        (f"0x{ADDRESS}.JSON", None, ADDRESS, None),
        (f"{UUID}.json", None, None, None),
        ("deployer", None, None, "deployer"),
        ("my hot wallet.json", None, None, "my hot wallet"),
        ("UTC--yesterday--me", None, None, "UTC--yesterday--me"),
        (".json", None, None, None),
    ],
)
def test_a_file_name_tells_time_address_or_label(
    file: str, created: str | None, address: str | None, label: str | None
) -> None:
    assert name_facts(file) == (created, address, label)


def test_a_label_in_the_file_goes_before_the_file_name() -> None:
    assert entry(document(name=" Cold storage "))["label"] == "Cold storage"
    assert entry(document(label="a", name="b"))["label"] == "a"


def test_an_empty_or_odd_label_leaves_the_file_name() -> None:
    assert entry(document(name=" ", label=7))["label"] == "main"


def test_a_long_label_is_cut() -> None:
    label = entry(document(name="x" * 10_000))["label"]
    assert label == "x" * 256 + "…"


@pytest.mark.parametrize("spelling", [ADDRESS, ADDRESS.upper(), CHECKSUMMED, "0X" + ADDRESS])
def test_an_address_is_shown_with_its_checksum(spelling: str) -> None:
    assert entry(document(address=spelling))["address"] == CHECKSUMMED


@pytest.mark.parametrize(
    "address",
    [ADDRESS[1:], ADDRESS + "0", "xdc" + ADDRESS, CHECKSUMMED[:-1] + "D", 7, [], "0" * 40],
)
def test_an_address_that_cannot_be_one_refuses_the_file(address: Any) -> None:
    assert refusal(document(address=address)) == "bad_address"


@pytest.mark.parametrize("address", [None, ""])
def test_without_an_address_in_the_file_the_name_gives_it(address: str | None) -> None:
    keystore = document(address=address)
    assert entry(keystore)["address"] is None
    assert entry(keystore, f"UTC--2024-01-02T03-04-05Z--{ADDRESS}")["address"] == CHECKSUMMED


def test_a_name_with_another_address_refuses_the_file() -> None:
    assert refusal(document(), "UTC--2024-01-02T03-04-05Z--" + "1" * 40) == "address_mismatch"


@pytest.mark.parametrize("odd", [None, 7, "", "1", UUID + "0", UUID + "\n"])
def test_an_id_that_is_no_uuid_is_null(odd: Any) -> None:
    assert entry(document(id=odd))["id"] is None


def test_a_uuid_is_shown_in_lower_case() -> None:
    assert entry(document(id=UUID.upper()))["id"] == UUID


def test_keys_count_in_any_letter_case() -> None:
    capital = {key.capitalize(): value for key, value in document().items()}
    assert entry(capital) == entry(document())


def test_two_spellings_of_one_key_refuse_the_file() -> None:
    assert refusal(document(Address="1" * 40)) == "duplicate_key"
    assert refusal(document(crypto=crypto(KDF="pbkdf2"))) == "duplicate_key"


def test_a_repeated_key_refuses_the_file() -> None:
    twice = json.dumps(document()).replace('"version"', f'"address": "{"1" * 40}", "version"')
    assert refusal(twice.encode()) == "duplicate_key"


@pytest.mark.parametrize("version", ["3", 3])
def test_version_three_may_be_a_number_or_text(version: Any) -> None:
    assert entry(document(version=version))["kdf"] == "scrypt"


@pytest.mark.parametrize("version", [1, 2, 4, "1", "4", True, 3.0, "three", [3]])
def test_another_version_refuses_the_file(version: Any) -> None:
    assert refusal(document(version=version)) == "unsupported_version"


def test_a_version_alone_makes_no_keystore() -> None:
    assert refusal({"name": "left-pad", "version": "1.3.0"}) == "not_keystore_v3"
    assert refusal({"version": 3}) == "missing_crypto"


def test_a_document_without_a_version_is_no_keystore() -> None:
    assert refusal(document(version=None)) == "not_keystore_v3"


@pytest.mark.parametrize("data", [b"[]", b'"3"', b"3", b"null", b"{}"])
def test_other_json_is_no_keystore(data: bytes) -> None:
    assert refusal(data) == "not_keystore_v3"


@pytest.mark.parametrize(
    "field", ["cipher", "cipherparams", "ciphertext", "kdf", "kdfparams", "mac"]
)
@pytest.mark.parametrize("value", [None, 7])
def test_every_field_of_the_crypto_section_is_required(field: str, value: Any) -> None:
    assert refusal(document(crypto=crypto(**{field: value}))) == "bad_crypto"


@pytest.mark.parametrize("section", [[], "scrypt", 3])
def test_a_crypto_section_that_is_no_object_refuses_the_file(section: Any) -> None:
    assert refusal(document(crypto=section)) == "bad_crypto"


@pytest.mark.parametrize(
    "name", ["", "a" * 25, "aes 128", "\x1b[31m", "9", "scrypt\n", "\u017fcrypt"]
)
def test_an_algorithm_that_is_no_short_name_refuses_the_file(name: str) -> None:
    assert refusal(document(crypto=crypto(kdf=name))) == "bad_crypto"
    assert refusal(document(crypto=crypto(cipher=name))) == "bad_crypto"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b" \n\t", "empty"),
        (b"\0" * 512, "empty"),
        (b"\xef\xbb\xbf", "empty"),
        (b"\x00\x01\x02", "not_json"),
        (b"# keystores of the team", "not_json"),
        (b'{"version": 3', "not_json"),
        (b'{"version": NaN}', "not_json"),
        (b'{"version": 3} {}', "not_json"),
        ('{"version": 3}'.encode("utf-16"), "not_utf8"),
        (b'{"name": "\xff"}', "not_utf8"),
        (b"[" * 100_000, "too_deep"),
        (b'{"a":' * 1_000 + b"0" + b"}" * 1_000, "too_deep"),
        (b" " * (MAX_FILE_BYTES + 1), "too_large"),
    ],
    ids=range(14),
)
def test_what_cannot_be_parsed_says_why(data: bytes, reason: Reason) -> None:
    assert refusal(data) == reason


def test_a_byte_order_mark_is_passed_over() -> None:
    data = b"\xef\xbb\xbf" + json.dumps(document()).encode()
    assert entry_of("main", data)[0] == entry(document())


def test_a_fraction_beside_the_keystores_own_fields_is_no_fault() -> None:
    assert entry(document(meta={"timestamp": 1519611221.25}))["address"] == CHECKSUMMED


def test_an_unencrypted_key_is_named_and_not_shown() -> None:
    canary = "4c" * 32
    plain = document(crypto=None, privatekey=canary)
    assert refusal(plain) == "unencrypted_key"
    assert canary not in json.dumps(warning("main", refusal(plain)))


def test_the_time_comes_from_ethers_where_the_name_has_none() -> None:
    extension = {"gethFilename": f"UTC--2018-06-19T04-19-27.0Z--{ADDRESS}"}
    assert entry(document(**{"x-ethers": extension}))["created"] == "2018-06-19T04:19:27.0Z"
    assert entry(document(**{"x-ethers": {"gethFilename": 7}}))["created"] is None
    assert entry(document(**{"x-ethers": "0.1"}))["created"] is None


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("café ключ 鍵", "café ключ 鍵"),
        ("red\x1b[31m", r"red\u001b[31m"),
        ("a\nb\tc", r"a\u000ab\u0009c"),
        ("\u202egnp", r"\u202egnp"),
        ("\U000e0001", r"\U000e0001"),
        (r"C:\keys", r"C:\\keys"),
        (os.fsdecode(b"caf\xe9"), r"caf\xe9"),
    ],
)
def test_what_a_terminal_could_obey_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=20), st.binary(max_size=20))
def test_different_names_are_shown_differently(one: bytes, other: bytes) -> None:
    shown = printable(os.fsdecode(one)) == printable(os.fsdecode(other))
    assert shown == (one == other)


def test_names_and_labels_are_escaped_in_what_is_shown() -> None:
    shown = entry(document(name="\x1b]0;x\x07"), "a\x1b[2J")
    assert (shown["file"], shown["label"]) == (r"a\u001b[2J", r"\u001b]0;x\u0007")
    assert warning("a\nb", "empty")["file"] == r"a\u000ab"


PHRASE = " ".join(["abandon"] * 11 + ["about"])


def test_a_label_that_looks_like_a_secret_is_withheld() -> None:
    shown, warnings = entry_of("main", json.dumps(document(name=PHRASE)).encode())
    assert shown["label"] is None
    assert [one["reason"] for one in warnings] == ["secret_in_label"]
    assert "abandon" not in json.dumps(warnings)


def test_a_file_name_that_looks_like_a_secret_is_withheld() -> None:
    assert refusal(document(), PHRASE) == "secret_in_name"
    assert warning(PHRASE, "secret_in_name")["file"] == "(name withheld)"


def test_every_reason_has_its_sentence() -> None:
    assert set(REASONS) == set(get_args(Reason))


def test_the_documentation_lists_every_warning() -> None:
    text = (Path(__file__).parent.parent.parent / "docs" / "keystore.md").read_text()
    table = text[text.index("| --- |") :].splitlines()[1:]
    assert table == [f"| `{reason}` | {detail} |" for reason, detail in sorted(REASONS.items())]


def shown_of(file: str, data: bytes) -> bytes:
    """All that leaves the module about a file, as the canonical JSON that a fact would hold."""
    try:
        one, warnings = entry_of(file, data)
    except KeystoreRefused as refused:
        return canonical_json_bytes([dict(warning(file, refused.reason))])
    return canonical_json_bytes([dict(one), *map(dict, warnings)])


FILE_NAMES = st.binary(min_size=1, max_size=40).map(os.fsdecode)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)
FIELDS = st.sampled_from([*document(), *(key.upper() for key in document()), "name", "x-ethers"])
CRYPTO_FIELDS = st.sampled_from([*crypto(), *(key.upper() for key in crypto())])


@settings(max_examples=200, deadline=None)
@given(FILE_NAMES, st.binary(max_size=200))
def test_any_bytes_are_an_entry_or_a_warning(file: str, data: bytes) -> None:
    assert shown_of(file, data)


@settings(max_examples=200, deadline=None)
@given(
    FILE_NAMES,
    st.dictionaries(FIELDS, JSON_VALUES, max_size=3),
    st.dictionaries(CRYPTO_FIELDS, JSON_VALUES, max_size=3),
)
def test_no_change_to_a_keystore_lets_its_encrypted_parts_out(
    file: str, changes: dict[str, Any], crypto_changes: dict[str, Any]
) -> None:
    keystore = document() | {"crypto": crypto() | crypto_changes} | changes
    shown = shown_of(file, json.dumps(keystore).encode())
    assert not [name for name, canary in CANARIES.items() if canary.encode() in shown]
