"""Which names announce a secret, and how much each of them says.

Pure rules over names; what stands under such a name is for `values`.  Source: the contract,
section 9.
"""

import re
from collections.abc import Mapping
from enum import IntEnum

__all__ = ["SENSITIVE_NAMES", "Strength", "name_strength"]


class Strength(IntEnum):
    """How much a name alone says: what its value must look like to count as a secret."""

    NONE = 0
    KEYED = 1  # `relay_key`, `key`: only what was surely drawn, and is no digest
    RANDOM = 2  # `token`, `cookie`: only a long random value
    GENERATED = 3  # `pass`, `pwd`: a value that no word or path looks like
    SCHEME = 4  # `authorization`: anything but the name of a method
    MNEMONIC = 5  # `mnemonic`: anything but an assembler instruction
    STRONG = 6  # `password`, `api_key`: anything but a placeholder or a reference


def _split(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_STRONG = _split(
    "password passwords passwd passphrase passphrases passcode privatekey privatekeys privkey "
    "prvkey privatekeydata secretkey secretkeys apikey apikeys apisecret apitoken accesskey "
    "accesskeys accountkey accesstoken refreshtoken idtoken authtoken bearertoken sessiontoken "
    "oauthtoken bottoken clientsecret sharedsecret appsecret consumersecret jwtsecret tokensecret "
    "webhooksecret signingsecret hmacsecret totpsecret otpsecret usersecret secretvalue "
    "seedphrase recoveryphrase secretphrase backupphrase walletphrase mnemonicphrase "
    "privatetoken secretstring presharedkey dbpass smtppass mysqlpass userpass rootpass adminpass "
    "mailpass ftppass redispass postgrespass authkey secretkeybase"
)
_RANDOM = _split(
    "bearer token tokens secret secrets cookie cookies auth signingkey "
    "appkey adminkey hmackey signerkey walletkey deploykey licensekey servicekey servicerolekey "
    "subscriptionkey storagekey cryptkey rootkey writekey "
    "encryptionkey masterkey sharedkey secretbase seed samlresponse secretid secretkeyid macaroon "
    "rawkey validationkey routingkey integrationkey"
)
_GENERATED = _split(
    "pass pwd passwort psk authtok recoverycode recoverycodes masterauth requirepass bindpw rootpw "
    "pw"
)

SENSITIVE_NAMES: Mapping[str, Strength] = {
    **dict.fromkeys(_RANDOM, Strength.RANDOM),
    **dict.fromkeys(_GENERATED, Strength.GENERATED),
    **dict.fromkeys(("authorization", "authorisation"), Strength.SCHEME),
    **dict.fromkeys(("mnemonic", "mnemonics"), Strength.MNEMONIC),
    **dict.fromkeys(_STRONG, Strength.STRONG),
}

# Endings that are safe to recognise inside one fused lower-case word, such as `dbpassword`.
_FUSED = (
    *("password", "passwd", "passphrase", "privatekey", "privkey", "secretkey", "apikey"),
    *("accesskey", "mnemonic", "seedphrase", "clientsecret", "accesstoken", "refreshtoken"),
    *("authtoken", "secretaccesskey"),
)
_FUSED_PASS = re.compile(
    r".*(?:pwd|psk)|(?:ssh|ldap|db|sql|root|user|admin|bind|smtp|http|my|require|store|key)pass"
)
# Words behind a name that say what shape the value has, not that it is something else.
_QUALIFIERS = frozenset(
    _split(
        "old new current previous prod production dev test staging primary secondary value "
        "plain plaintext cleartext raw hex base64 b base64url pem string str text words v "
        "binary default here confirm confirmation again"
    )
)
_NEGATIONS = frozenset(
    _split(
        "public publishable no has have is show hide forgot reset require requires required allow "
        "use without min max encrypted hashed masked redacted missing invalid expired wrong "
        "empty count num page next continuation continue sync cancel cancellation stop pad "
        "bos eos unk mask sep cls special start end erc csrf checksum sha fingerprint digest "
        "sealed ciphertext"
    )
)
# A header of this kind is a credential, if a weak one.
_TOKEN_HEADER = re.compile(r"(?:[A-Z][A-Za-z0-9]*-)+(?:Token|TOKEN)")
# What environments and headers call a credential with a word that elsewhere says little:
# `AZURE_DEVOPS_EXT_PAT`, `BW_SESSION`, `X-Relay-Key`. A key of these kinds opens nothing.
_SHOUTED = re.compile(r"[A-Z0-9_.]*_(?:PAT|SESSION|KEY)|(?:[A-Z][A-Za-z0-9]*-)+Key")
_HARMLESS_KEYS = frozenset(
    _split(
        "cache primary foreign partition sort group public pub host hash map row item store object "
        "registry lock fact artifact state context idempotency index lookup verify verifying "
        "verification translation message routing etag gpg pgp mon tur translate sec websocket "
        "site peer event dedup dedupe bucket path query search order column field label property "
        "entity "
        "block blob content commit image layer ssh authorized known trusted signer attestation "
        "ephemeral identity issue project space shard metric trace span rsa dsa ecdsa ed "
        "ec zone node leaf dict hot shortcut press config setting settings setup "
        "translations request response task job run file document doc cite"
    )
)
_NAME_WORDS = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+")
_MAX_NAME_CHARS = 128


def name_strength(name: str) -> Strength:
    """How sensitive the name of a field, flag, header or variable is, in any spelling.

    `dbPassword`, `DB_PASSWORD`, `db-password` and `db password 2` are one name. A name that goes
    on to something harmless (`password_file`, `api_key_id`, `token_count`) is not sensitive.
    """
    if len(name) > _MAX_NAME_CHARS:
        return Strength.NONE
    words = [word.lower() for word in _NAME_WORDS.findall(name)]
    while len(words) > 1 and words[-1] in _QUALIFIERS:
        words.pop()
    if not words or not _NEGATIONS.isdisjoint(words):
        return Strength.NONE
    if words[-1] == "token" and _TOKEN_HEADER.fullmatch(name):
        return Strength.GENERATED
    for size in range(min(4, len(words)), 0, -1):
        found = SENSITIVE_NAMES.get("".join(words[-size:]))
        if found is not None:
            return Strength.STRONG if words == ["secret"] else found
    if words[-1].endswith(_FUSED):
        return Strength.STRONG
    if _FUSED_PASS.fullmatch(words[-1]):
        return Strength.GENERATED
    if not _HARMLESS_KEYS.isdisjoint(words):
        return Strength.NONE
    if _SHOUTED.fullmatch(name):
        return Strength.RANDOM
    # Of one word, too: `pubkey`. No word may follow, for the gates look right behind "key".
    if name[-3:].lower() != "key" or words[-1].removesuffix("key") in _HARMLESS_KEYS:
        return Strength.NONE
    return Strength.KEYED
