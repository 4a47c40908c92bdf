"""Which names announce a secret, and which values under such a name are one.

Pure rules over names and short strings, shared by the walk over JSON (`secrets`) and the search
for assignments in text (`secret_text`).  Source: the contract, section 9.
"""

import re
from collections.abc import Mapping
from enum import IntEnum

from mfm_ops.machine.secret_issued import is_drawn

__all__ = [
    "SENSITIVE_NAMES",
    "Strength",
    "exposes",
    "is_word_phrase",
    "looks_generated",
    "looks_random",
    "name_strength",
]


class Strength(IntEnum):
    """How much a name alone says: what its value must look like to count as a secret."""

    NONE = 0
    RANDOM = 1  # `token`, `cookie`: only a long random value
    GENERATED = 2  # `pass`, `pwd`: a value that no word or path looks like
    SCHEME = 3  # `authorization`: anything but the name of a method
    MNEMONIC = 4  # `mnemonic`: anything but an assembler instruction
    STRONG = 5  # `password`, `api_key`: anything but a placeholder or a reference


def _split(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_STRONG = _split(
    "password passwords passwd passphrase passphrases passcode privatekey privatekeys privkey "
    "prvkey privatekeydata secretkey secretkeys apikey apikeys apisecret apitoken accesskey "
    "accesskeys accountkey accesstoken refreshtoken idtoken authtoken bearertoken sessiontoken "
    "oauthtoken bottoken clientsecret sharedsecret appsecret consumersecret jwtsecret tokensecret "
    "webhooksecret signingsecret hmacsecret totpsecret otpsecret usersecret secretvalue "
    "seedphrase recoveryphrase secretphrase backupphrase walletphrase mnemonicphrase "
    "secretstring presharedkey dbpass smtppass mysqlpass userpass rootpass adminpass "
    "mailpass ftppass redispass postgrespass authkey secretkeybase"
)
_RANDOM = _split(
    "bearer token tokens secret secrets cookie cookies auth signingkey "
    "appkey adminkey hmackey signerkey walletkey deploykey licensekey servicekey servicerolekey "
    "subscriptionkey storagekey cryptkey rootkey writekey "
    "encryptionkey masterkey sharedkey secretbase seed samlresponse"
)
_GENERATED = _split("pass pwd passwort psk recoverycode recoverycodes")

SENSITIVE_NAMES: Mapping[str, Strength] = {
    **dict.fromkeys(_RANDOM, Strength.RANDOM),
    **dict.fromkeys(
        ("pass", "pwd", "passwort", "psk", "recoverycode", "recoverycodes"), Strength.GENERATED
    ),
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
    r".*pwd|(?:ssh|ldap|db|sql|root|user|admin|bind|smtp|http|my|require|store|key)pass"
)
# Words behind a name that say what shape the value has, not that it is something else.
_QUALIFIERS = frozenset(
    _split(
        "old new current previous prod production dev test staging primary secondary value "
        "plain plaintext cleartext raw hex base64 b base64url pem string str text words v "
        "default here confirm confirmation again"
    )
)
_NEGATIONS = frozenset(
    _split(
        "public publishable no has is show hide forgot reset require requires required allow "
        "use without min max encrypted hashed masked redacted missing invalid expired wrong "
        "empty count num page next continuation continue sync cancel cancellation stop pad "
        "bos eos unk mask sep cls special start end erc csrf"
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
    for size in range(min(4, len(words)), 0, -1):
        found = SENSITIVE_NAMES.get("".join(words[-size:]))
        if found is not None:
            return Strength.STRONG if words == ["secret"] else found
    if words[-1].endswith(_FUSED):
        return Strength.STRONG
    return Strength.GENERATED if _FUSED_PASS.fullmatch(words[-1]) else Strength.NONE


_PLACEHOLDER_WORDS = frozenset(
    _split(
        "redacted masked hidden removed omitted filtered sensitive protected encrypted null "
        "none nil undefined unset n/a na true false yes no on off required optional string "
        "str text bytes prompt ask stdin placeholder not-set not_set unknown any object array "
        "default file filename path arg argument value"
    )
)
_WRAPPED = re.compile(
    r"<[^<>]*>|\[[A-Za-z _-]*\]|\([A-Za-z ]*\)|\{\{.*\}\}|\$?\{[^{}]*\}|\$[A-Za-z_][A-Za-z0-9_]*"
    r"|\$\([^()]*\)|%[A-Za-z_]+%|%\([a-z_]+\)s|%[sdv]|__[A-Z_]+__|@[A-Z_]+@|\$\{\{.*\}\}|!\w+ .*",
    re.ASCII,
)
_INSTRUCTION = re.compile(
    r"(?:your|my|insert|enter|replace|put|the|some|change)[-_ ][a-z_ -]*"
    r"(?:key|token|secret|password|passphrase|phrase|here|me|this)",
    re.ASCII | re.IGNORECASE,
)
_REFERENCE = re.compile(
    r"(?:file|vault|env|keyring|keychain|secret|secrets|ref|ref\+[a-z]+|arn|op|ssm|kms|sops|fd|cmd"
    r"|awssm|aws-sm|gcpsm|azurekv|secretsmanager|systemd|credential|pass-store|prompt):[^\s]*"
    r"|[A-Za-z][A-Za-z0-9+.-]*://[^\s@]*|projects/[\w/.-]+|secrets?/[\w/.-]+",
    re.ASCII | re.IGNORECASE,
)
_PATH = re.compile(r"(?:~|\$\w+|\.{1,2}|[A-Za-z]:|@)?[/\\][\w.@+ ,~\\/#-]*", re.ASCII)
_FILLER = frozenset("*•●.xX#-_ ?·…0")
_METHODS = frozenset(
    _split(
        "basic bearer digest negotiate ntlm kerberos rbac abac oauth oauth2 token apikey webhook "
        "node allowed denied granted enabled disabled anonymous mtls jwt"
    )
)
_CREDENTIAL_WORDS = re.compile(
    r"(?i)(?<![a-z])(?:passwords?|passwd|passphrases?|secrets?|tokens?|keys?|credentials?|phrase"
    r"|mnemonic|authentication|authorization|login)(?![a-z0-9])"
)
_STOP_WORDS = frozenset(
    _split("the a an is are to of for your if or not with from be must used this that will")
)


def _is_placeholder(value: str) -> bool:
    lowered = value.lower()
    return (
        lowered in _PLACEHOLDER_WORDS
        or (len(value) >= 3 and _FILLER.issuperset(value))
        or (len(value) < 60 and ("redacted" in lowered or "masked" in lowered))
        or (len(value) < 60 and ("•••" in value or "***" in value))
        or _WRAPPED.fullmatch(value) is not None
        or _INSTRUCTION.fullmatch(value) is not None
    )


def _is_reference(value: str) -> bool:
    if _REFERENCE.fullmatch(value):
        return True
    if not _PATH.fullmatch(value):
        return False
    # Standard base64 may start with a slash too: a path has few capitals and digits.
    dense = sum(1 for char in value if char.isdigit() or char.isupper())
    return len(value) < 24 or dense * 3 < len(value)


def _is_description(value: str, name: str) -> bool:
    """A label or a sentence about the field, as in option listings and message catalogues."""
    if value.lower() == name.lower() and not value.islower():
        return True
    words = value.split()
    if len(words) < 2 or any(char.isdigit() for char in value):
        return False
    if len(words) >= 12:
        return not _STOP_WORDS.isdisjoint(word.lower() for word in words)
    if _CREDENTIAL_WORDS.search(value):
        return True
    if "phrase" in name.lower():
        return False  # a passphrase may well be a sentence
    return len(words) >= 4 and not _STOP_WORDS.isdisjoint(word.lower() for word in words)


def exposes(strength: Strength, value: str, name: str) -> bool:
    """Whether `value`, standing under a name of this strength, is a secret in clear."""
    value = value.strip()
    if not strength or not value or _is_placeholder(value) or _is_reference(value):
        return False
    if strength is Strength.RANDOM:
        return looks_random(value)
    if strength is Strength.GENERATED:
        return looks_generated(value) or is_word_phrase(value)
    if _is_description(value, name):
        return False
    if strength is Strength.SCHEME:
        return not all(word in _METHODS for word in re.split(r"[\s,]+", value.lower()))
    if strength is Strength.MNEMONIC:
        return len(value) > 8 or " " in value
    return True


_CODE = re.compile(
    r"[A-Za-z_]\w*(?:\.\w+)*[(\[].*"  # a call or a subscript
    r"|[A-Za-z_]\w*(?:(?:\.|::|->)[A-Za-z_]\w*)+"  # an attribute chain, a file name
    r"|[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+"  # a constant
    r"|[A-Za-z]?[a-z]*(?:[_-][a-z]+)*(?:[_-][0-9]{1,2})?"  # words: `user_password`, `step-2`
    r"|v?[0-9]+(?:[.,:/-][0-9]+)*[a-z]{0,3}"  # versions, dates, sizes, counts
    r"|[0-9]+[A-Za-z%]{1,6}",
    re.ASCII,
)
# What password managers offer to people: `copper-lantern-drift-48`.
_WORD_PHRASE = re.compile(
    r"(?:[A-Za-z]{3,9}[-_.]){3,8}(?:[A-Za-z]{3,9}[-_.]?)?[0-9]{1,4}", re.ASCII
)
_ALGORITHM = re.compile(
    r"(?i)(?:hmac-?)?(?:sha|md|aes|rsa|dsa|ecdsa|ed|utf|base|http|https|oauth|tls|ssl|ipv|x|pbkdf|"
    r"argon|bcrypt|scrypt|des|iso|aws|ec|curve|p|s|k)-?[0-9]+(?:[-_][a-z0-9_-]{0,12}|[a-z]{0,3})"
)
_CODE_MARKS = ("(", "<", "${", "{{", "=>", "::", "/>", "&&", "||", "\\n", "->")
_DIGITS = re.compile(r"[0-9]")
_LETTERS = re.compile(r"[A-Za-z]")
_SYMBOLS = re.compile(r"[!@#$%^&*+~?]")
_SPACES = re.compile(r"\s")
_TURNS = re.compile(r"[a-z0-9][A-Z]")
_TOKEN = re.compile(r"[A-Za-z0-9_+/=.~:|%-]{16,}", re.ASCII)
_HEX = re.compile(r"[0-9a-fA-F]+")
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")
_SRI = re.compile(r"(?:sha(?:1|256|384|512)|md5)[-:].*")


def is_word_phrase(value: str) -> bool:
    """Whether a value is three or more words and a number, joined by one mark."""
    return _WORD_PHRASE.fullmatch(value) is not None


def looks_generated(value: str) -> bool:
    """Whether a single word in running text looks like a password rather than like prose or code.

    Six characters or more, letters with digits or symbols, and none of: a path, a placeholder, a
    version, a date, a constant, an attribute or a call, the name of an algorithm.
    """
    if not 6 <= len(value) <= 4096 or _SPACES.search(value):
        return False
    if not _LETTERS.search(value) or _is_placeholder(value) or _is_reference(value):
        return False
    if _ALGORITHM.fullmatch(value):
        return False
    if _CODE.fullmatch(value):
        return "." in value and len(value) >= 10 and is_drawn(value.encode().replace(b".", b""))
    if value[0] in "[{|" or value.count("|") > 1 or any(mark in value for mark in _CODE_MARKS):
        return False
    return bool(_DIGITS.search(value) or _SYMBOLS.search(value)) or _irregular(value)


def _irregular(value: str) -> bool:
    """Capitals in places where neither a sentence nor camel case puts so many of them."""
    share = 6 if len(value) >= 16 else 4
    return len(value) >= 8 and len(_TURNS.findall(value)) * share >= len(value)


def looks_random(value: str) -> bool:
    """Whether a value looks drawn at random: 16 or more characters of a key, hex or base64."""
    if len(value) > 8192 or not _TOKEN.fullmatch(value):
        return False
    if _ADDRESS.fullmatch(value) or _SRI.fullmatch(value):
        return False
    if _is_reference(value):
        return False
    if _CODE.fullmatch(value):
        # An attribute chain, unless a part of it was drawn: `s.PCAq2VJzwc81yTq2NDSXR90k`.
        return any(len(part) >= 16 and is_drawn(part.encode()) for part in value.split("."))
    if _HEX.fullmatch(value):
        return len(value) >= 24
    digits = len(_DIGITS.findall(value))
    mixed = value != value.lower() and value != value.upper()
    if mixed:
        return digits >= 2 or _irregular(value)
    return digits * 8 >= len(value) and "." not in value and digits < len(value)
