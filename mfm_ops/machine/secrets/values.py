"""Which values are secrets: under a name of some strength, or by what they look like.

Pure rules over short strings, shared by everything that finds a place where a secret may stand.
Source: the contract, section 9.
"""

import re

from mfm_ops.machine.secrets.issued import is_drawn
from mfm_ops.machine.secrets.keyed import is_key
from mfm_ops.machine.secrets.names import Strength, name_strength

__all__ = [
    "exposes",
    "is_distinct",
    "is_sample",
    "is_well_known",
    "is_word_phrase",
    "looks_generated",
    "looks_random",
]


def _split(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_PLACEHOLDER_WORDS = frozenset(
    _split(
        "redacted masked hidden removed omitted filtered sensitive protected encrypted null "
        "none nil undefined unset n/a na true false yes no on off required optional string "
        "str text bytes prompt ask stdin placeholder not-set not_set unknown any object array "
        "default file filename path arg argument value"
    )
)
_WRAPPED = re.compile(
    r"<[^<>]*>|<%.*%>|#\{[^{}]*\}|@@\w+@@|ENC[\[(].*|!vault\b.*|(?i:arn:aws).*"
    r"|(?:required|nullable|string|confirmed|m(?:in|ax):[0-9]+|[|,])+"
    r"|\[[A-Za-z _-]*\]|\([A-Za-z ]*\)|\{\{.*\}\}|\$?\{[^{}]*\}|\$[A-Za-z_][A-Za-z0-9_]*"
    r"|\$\([^()]*\)|%[A-Za-z_]+%|%\([a-z_]+\)s|%[sdv]|__[A-Z_]+__"
    r"|[~^]?[0-9]+(?:\.[0-9]+){2}(?:-[\w.]+)?|@[A-Z_]+@|\$\{\{.*\}\}|!\w+ .*",
    re.ASCII,
)
_EXAMPLE = re.compile(r"example(?!\.(?:com|org|net))")
_INSTRUCTION = re.compile(
    r"(?:your|my|insert|enter|replace|put|the|some|change)[-_ ][a-z_ -]*"
    r"(?:key|token|secret|password|passphrase|phrase|here|me|this)",
    re.ASCII | re.IGNORECASE,
)
_REFERENCE = re.compile(
    r"(?:file|vault|env|unix|(?:hmac-)?sha[0-9]{1,3}|md5|keyring|keychain|secret|secrets|ref|ref\+[a-z]+|arn|op|ssm|kms|sops|fd|cmd"
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
# How other languages call the field; as a value it is a label, and never alone a password.
_LABEL = re.compile(
    r"(?i)(?:passwort|kennwort|contrase(?:n|\xf1)a|senha|heslo|wachtwoord|salasana|parola"
    r"|passord|jelsz(?:o|\xf3)|adgangskode|mot de passe|palavra[- ]passe|clave|kata sandi"
    r"|geslo|lozinka|slapta)\b"
)
_STOP_WORDS = frozenset(
    _split(
        "the a an is are to of for your if or not with from be must used this that will "
        "be have has can do does too at least must"
    )
)


_VERDICTS = frozenset(
    _split("is must can't cannot can should may has was are does do please not too already no")
)


def _is_placeholder(value: str) -> bool:
    lowered = value.lower()
    return (
        lowered.rstrip("!?") in _PLACEHOLDER_WORDS
        or (len(value) >= 3 and _FILLER.issuperset(value))
        or (len(value) < 60 and ("redacted" in lowered or "masked" in lowered))
        or (len(value) < 60 and ("•••" in value or "***" in value))
        or (len(value) < 60 and ("..." in value or "\u2026" in value))
        or (_WRAPPED.fullmatch(value) is not None and not _is_braced_body(value))
        or _INSTRUCTION.fullmatch(value) is not None
        or (value.startswith("0x") and _ADDRESS.fullmatch(value) is not None)
        or ("example" in lowered and _EXAMPLE.search(lowered) is not None)
    )


def _is_braced_body(value: str) -> bool:
    """`{COQLCE6D...=}`: how Maven writes what it disguised, and longer than any placeholder."""
    body = value[1:-1]
    return value[0] == "{" and len(body) >= 24 and "{" not in body and looks_random(body)


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
    if (value.lower() == name.lower() and not value.islower()) or _LABEL.search(value):
        return True
    if name.lower() == "secret" and value.isalpha() and value.istitle():
        return True  # what the field is called: `"secret": "Geheimnis"`
    words = value.split()
    if len(words) > 1 and words[0].lower() in _VERDICTS:
        return True
    if (
        2 < len(words) < 12
        and "phrase" not in name.lower()
        and not _STOP_WORDS.isdisjoint(word.lower() for word in words)
    ):
        return True  # "is too short (8 characters)"
    if any(char.isdigit() for char in value):
        return False
    if (
        not value.isascii()
        and len(value) < 200
        and ("phrase" not in name.lower() or len(words) < 2)
    ):
        return True  # a label in another language: passwords are typed on any keyboard
    if len(words) < 2:
        return False
    if value[0].isupper() and words[1].islower() and "phrase" not in name.lower():
        return True  # "Must not be empty"
    if len(words) >= 12:
        return not _STOP_WORDS.isdisjoint(word.lower() for word in words)
    if _CREDENTIAL_WORDS.search(value):
        return True
    if "phrase" in name.lower():
        return False  # a passphrase may well be a sentence
    return len(words) >= 4 and not _STOP_WORDS.isdisjoint(word.lower() for word in words)


_MAX_PASSWORD_CHARS = 300


def _is_sealed(value: str, name: str) -> bool:
    """Far too long for a password, and no blanks: it was encrypted, and may be shown."""
    return len(value) > _MAX_PASSWORD_CHARS and "pass" in name.lower() and " " not in value


def _names_an_entry(value: str, name: str) -> bool:
    """`secretKey: password`, `accessKey: "s"`: not a key, but what the entry's or the page's is."""
    return name.lower().endswith("key") and (
        len(value) == 1
        or is_sample(value)
        or (value.islower() and name_strength(value) > Strength.NONE)
    )


def exposes(strength: Strength, value: str, name: str) -> bool:
    """Whether `value`, standing under a name of this strength, is a secret in clear."""
    value = value.strip()
    if not strength or not value or _is_placeholder(value) or _is_reference(value):
        return False
    if strength is Strength.KEYED:
        return is_key(value, name)
    if strength is Strength.RANDOM:
        return looks_random(value)
    if strength is Strength.GENERATED:
        return looks_generated(value) or is_word_phrase(value) or is_well_known(value)
    if _is_description(value, name) or _is_sealed(value, name) or _names_an_entry(value, name):
        return False
    if strength is Strength.SCHEME:
        return not all(word in _METHODS for word in re.split(r"[\s,]+", value.lower()))
    if strength is Strength.MNEMONIC:
        return len(value) > 8 or " " in value
    return True


# What manuals write in place of a password, and what a program's own key of that name is called.
_SAMPLE = re.compile(
    r"(?:user|my|db|some|your|new|old|the|test|example|default)?[-_]?"
    r"(?:pass|password|passwd|passphrase|pwd|pw|secret|token|key|port)[0-9]?"
    r"|change[-_]?(?:me|it|this)[!0-9]*|replace[-_]?me|example[-_\w]*|\w+[-_]example"
    r"|geheim\$parole|foo|bar|foobar|todo|tbd|fixme|dummy",
    re.IGNORECASE | re.ASCII,
)
# Passwords that people choose again and again, read as plain letters; public lists name them all.
_COMMON = re.compile(
    r"(?:hunter|letmein|qwerty(?:uiop)?|iloveyou|trustno|opensesame|zaqwsx|qazwsx|asdfgh(?:jkl)?"
    r"|welcome|sunshine|princess|dragon|monkey|football|baseball|superman|batman|starwars"
    r"|correcthorsebatterystaple|admin|master|shadow|whatever|(?:my|super|top|very)+secret\w{0,8})"
)
_LEET = str.maketrans("013457@$!", "oieastasi")
_ALPHA_ONLY = re.compile(r"[^a-z]")


def is_sample(value: str) -> bool:
    """Whether a value is what manuals write in place of one: `mypassword`, `db_pass`."""
    return _SAMPLE.fullmatch(value) is not None


def is_well_known(value: str) -> bool:
    """Whether a value is one of the passwords that people are known to choose: `hunter2`.

    A common word alone (`admin`) is none of them, nor is `password`; in disguise they are:
    `P@ssw0rd123`.
    """
    if not 6 <= len(value) <= 40 or not value.isascii() or not value.isprintable():
        return False
    lowered = value.lower()
    plain = _ALPHA_ONLY.sub("", lowered)
    read = _ALPHA_ONLY.sub("", lowered.rstrip("0123456789!#$*.?_").translate(_LEET))
    if lowered in {"letmein", "iloveyou", "opensesame", "correcthorsebatterystaple", "qwertyuiop"}:
        return True
    if plain == lowered:
        return False
    if " " in value or "/" in value or "-" in value:
        return False
    disguised = read != plain and re.fullmatch(
        r"(?:my|super|top)?(?:passw(?:or)?d|secret)\w{0,8}", read
    )
    return bool(disguised) or _COMMON.fullmatch(plain) is not None or bool(_COMMON.fullmatch(read))


_CODE = re.compile(
    r"[A-Za-z_]\w*(?:\.\w+)*[(\[].*"  # a call or a subscript
    r"|[A-Za-z_]\w*(?:(?:\.|::|->)[A-Za-z_]\w*)+"  # an attribute chain, a file name
    r"|[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+"  # a constant
    r"|[A-Za-z]?[a-z]*(?:[_-][a-z]+)*(?:[_-][0-9]{1,2})?"  # words: `user_password`, `step-2`
    r"|v?[0-9]+(?:[.,:/-][0-9]+)*[a-z]{0,3}"  # versions, dates, sizes, counts
    r"|[0-9]+/?[A-Za-z%]{1,6}",
    re.ASCII,
)
# What password managers offer to people: `copper-lantern-drift-48`.
_WORD_PHRASE = re.compile(
    r"(?:[A-Za-z]{3,9}[-_.]){3,8}(?:[A-Za-z]{3,9}[-_.]?)?[0-9]{1,4}", re.ASCII
)
_ALGORITHM = re.compile(
    r"(?i)(?:hmac-?)?(?:sha|md|rmd|ripemd|aes|rsa|dsa|ecdsa|ed|utf|base|http|https|oauth|tls|ssl|ipv|x|pbkdf|"
    r"argon|bcrypt|scrypt|des|iso|aws|ec|curve|p|s|k)-?[0-9]{1,6}(?:[-_][a-z0-9_-]{0,12}|[a-z]{0,3})"
)
_CODE_MARKS = ("(", "<", "${", "{{", "=>", "::", "/>", "&&", "||", "\\n", "->", ".*", "[^", "qr/")
_DIGITS = re.compile(r"[0-9]")
_LETTERS = re.compile(r"[A-Za-z]")
_SYMBOLS = re.compile(r"[!@#$%^&*+~?]")
_SPACES = re.compile(r"\s")
_TURNS = re.compile(r"[a-z0-9][A-Z]")
_TOKEN = re.compile(r"[A-Za-z0-9_+/=.~:|%-]{16,}", re.ASCII)
_TEN = "0123456789"
_HEX = re.compile(r"[0-9a-fA-F]+")
_DRAWN_LOWER = re.compile(r"(?=[a-z]{0,14}[0-9][a-z0-9]{0,12}[0-9][0-9]{0,3}[a-z])[a-z0-9]{16,64}")
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")
_SRI = re.compile(r"(?:sha(?:1|256|384|512)|md5)[-:].*")


def is_distinct(value: str) -> bool:
    """Whether a value is a password even where little announces one: as a word of a sentence.

    Words joined by a mark, a key, letters of both cases with digits, or a well-known password.
    """
    if is_well_known(value) or is_word_phrase(value) or looks_random(value):
        return True
    kinds = sum(any(map(kind, value)) for kind in (str.isupper, str.islower, str.isdigit))
    return len(value) >= 8 and kinds == 3 and looks_generated(value)


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
    if "." in value and any(map(_DRAWN_LOWER.fullmatch, value.split("."))):
        return True
    if _CODE.fullmatch(value):
        # An attribute chain, unless a part of it was drawn: `s.PCAq2VJzwc81yTq2NDSXR90k`.
        return any(
            len(part) >= 16 and is_drawn(part.encode(), least=0, share=8)
            for part in value.split(".")
        )
    if _HEX.fullmatch(value):
        return len(value) >= 24
    digits = len(_DIGITS.findall(value))
    mixed = value != value.lower() and value != value.upper()
    if mixed:
        return digits >= 2 or _irregular(value)
    if digits > 1 and len(value) >= 24 and value.isalnum() and not value.rstrip(_TEN).isalpha():
        return True  # base 32, or small letters and digits: few digits may be among them
    return digits * 8 >= len(value) and "." not in value and digits < len(value)
