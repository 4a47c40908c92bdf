"""Labelled samples for the secret scan: credentials made anew each time, and harmless look-alikes.

No credential stands here: prefixes are joined to random bodies when asked for, so that neither
people nor scanners take this file for a leak.  The look-alikes in text are in `harmless.txt`.
"""

import base64
import hashlib
import json
import string
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

from eth_account.hdaccount.mnemonic import Mnemonic

from mfm_ops.machine.json_rules import Json

__all__ = ["credentials", "harmless_lines", "harmless_values", "phrase"]

_B62 = string.ascii_letters + string.digits
_URL64 = _B62 + "-_"
_HEX = "0123456789abcdef"
_UPPER = string.ascii_uppercase + "234567"
_B58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


def _draw(rng: Random, alphabet: str, size: int) -> str:
    return "".join(rng.choices(alphabet, k=size))


def phrase(rng: Random, words: int = 12) -> str:
    """A recovery phrase with a valid checksum."""
    return Mnemonic().to_mnemonic(rng.randbytes(words * 4 // 3))


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _url64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _jwt(rng: Random) -> str:
    header = _url64(json.dumps({"alg": "HS256", "typ": "JWT"}).encode())
    claims = _url64(json.dumps({"sub": _draw(rng, _HEX, 8), "iat": 1700000000}).encode())
    return f"{header}.{claims}.{_url64(rng.randbytes(32))}"


def _pem(rng: Random, label: str) -> str:
    body = _b64(rng.randbytes(96))
    lines = "\n".join(body[at : at + 64] for at in range(0, len(body), 64))
    dashes = "-" * 5
    return f"{dashes}BEGIN {label}{dashes}\n{lines}\n{dashes}END {label}{dashes}\n"


def _wif(rng: Random, *, compressed: bool) -> str:
    raw = b"\x80" + rng.randbytes(32) + (b"\x01" if compressed else b"")
    raw += hashlib.sha256(hashlib.sha256(raw).digest()).digest()[:4]
    number, text = int.from_bytes(raw, "big"), ""
    while number:
        number, digit = divmod(number, 58)
        text = _B58[digit] + text
    return text


def _password(rng: Random) -> str:
    return _draw(rng, _B62 + "!@#%^*+", 14) + "7a"


_Maker = Callable[[Random], str]

_SHAPES: dict[str, _Maker] = {
    "aws": lambda r: "AK" + "IA" + _draw(r, _UPPER, 16),
    "aws_temporary": lambda r: "AS" + "IA" + _draw(r, _UPPER, 16),
    "github": lambda r: r.choice(["ghp", "gho", "ghs", "ghu"]) + "_" + _draw(r, _B62, 36),
    "github_fine": lambda r: "github" + "_pat_" + _draw(r, _B62, 22) + "_" + _draw(r, _B62, 59),
    "gitlab": lambda r: "gl" + "pat-" + _draw(r, _URL64, 20),
    "slack": lambda r: "xo" + "xb-" + _draw(r, string.digits, 12) + "-" + _draw(r, _B62, 24),
    "slack_app": lambda r: "xa" + "pp-1-A0" + _draw(r, _UPPER, 9) + "-" + _draw(r, _HEX, 64),
    "stripe": lambda r: r.choice(["sk", "rk"]) + "_live_" + _draw(r, _B62, 24),
    "google": lambda r: "AI" + "za" + _draw(r, _URL64, 35),
    "google_oauth": lambda r: "GOC" + "SPX-" + _draw(r, _URL64, 28),
    "openai": lambda r: "sk" + "-proj-" + _draw(r, _B62, 48),
    "anthropic": lambda r: "sk" + "-ant-api03-" + _draw(r, _URL64, 93) + "AA",
    "npm": lambda r: "np" + "m_" + _draw(r, _B62, 36),
    "pypi": lambda r: "py" + "pi-AgEIcHlwaS5vcmc" + _draw(r, _URL64, 120),
    "sendgrid": lambda r: "S" + "G." + _draw(r, _URL64, 22) + "." + _draw(r, _URL64, 43),
    "twilio": lambda r: "S" + "K" + _draw(r, _HEX, 32),
    "telegram": lambda r: _draw(r, "123456789", 10) + ":AA" + _draw(r, _URL64, 33),
    "azure_storage": lambda r: (
        "DefaultEndpointsProtocol=https;AccountName=a;Account" + "Key=" + _b64(r.randbytes(64))
    ),
    "age": lambda r: "AGE-SECRET" + "-KEY-1" + _draw(r, "QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L", 58),
    "vault": lambda r: "hv" + "s." + _draw(r, _URL64, 24),
    "digitalocean": lambda r: "do" + "p_v1_" + _draw(r, _HEX, 64),
    "huggingface": lambda r: "h" + "f_" + _draw(r, _B62, 34),
    "bip32": lambda r: "xp" + "rv9s21ZrQH143K" + _draw(r, _B58, 97),
    "wif": lambda r: _wif(r, compressed=True),
    "wif_long": lambda r: _wif(r, compressed=False),
    "jwt": _jwt,
    "pem_rsa": lambda r: _pem(r, "RSA " + "PRIVATE KEY"),
    "pem_pkcs8": lambda r: _pem(r, "PRIVATE" + " KEY"),
    "pem_ec": lambda r: _pem(r, "EC " + "PRIVATE KEY"),
    "openssh": lambda r: _pem(r, "OPENSSH " + "PRIVATE KEY"),
    "pgp": lambda r: _pem(r, "PGP " + "PRIVATE KEY BLOCK"),
    "pem_base64": lambda r: _b64(_pem(r, "PRIVATE" + " KEY").encode()),
    "shopify": lambda r: "shp" + "at_" + _draw(r, _HEX, 32),
    "databricks": lambda r: "da" + "pi" + _draw(r, _HEX, 32),
    "docker": lambda r: "dckr" + "_pat_" + _draw(r, _URL64, 27),
    "grafana": lambda r: "gl" + "sa_" + _draw(r, _B62, 32) + "_" + _draw(r, _HEX, 8),
    "linear": lambda r: "lin" + "_api_" + _draw(r, _B62, 40),
    "tailscale": lambda r: "ts" + "key-auth-" + _draw(r, _B62, 12) + "-" + _draw(r, _B62, 32),
    "phrase_12": lambda r: phrase(r, 12),
    "phrase_15": lambda r: phrase(r, 15),
    "phrase_18": lambda r: phrase(r, 18),
    "phrase_21": lambda r: phrase(r, 21),
    "phrase_24": lambda r: phrase(r, 24),
    "phrase_comma": lambda r: ", ".join(phrase(r).split()),
    "phrase_lines": lambda r: "\n".join(phrase(r, 24).split()),
    "phrase_upper": lambda r: phrase(r).upper(),
    "phrase_numbered": lambda r: "\n".join(
        f"{place}. {word}" for place, word in enumerate(phrase(r).split(), 1)
    ),
    "bearer": lambda r: "Authorization: Bear" + "er " + _draw(r, _URL64, 32),
    "bearer_hex": lambda r: "bear" + "er " + _draw(r, _HEX, 40),
    "basic": lambda r: "Basic " + _b64(f"admin:{_draw(r, _B62, 10)}".encode()),
    "url": lambda r: f"postgres://app:{_draw(r, _B62, 12)}@db.example/app",
    "url_http": lambda r: f"https://deploy:{_draw(r, _HEX, 20)}@git.example/r.git",
    "slack_hook": lambda r: (
        "https://hooks.slack" + ".com/services/T0ABCDEFG/B0ABCDEFG/" + _draw(r, _B62, 24)
    ),
    "flag_equals": lambda r: "--pass" + "word=" + _draw(r, _B62, 12) + "9x",
    "flag_space": lambda r: "mysql -u root --pass" + "word " + _draw(r, _B62, 12) + "9x db",
    "dsn": lambda r: "host=db user=app pass" + "word=" + _draw(r, _B62, 12) + "9x dbname=x",
    "dotenv": lambda r: "PORT=80\nDB_PASS" + "WORD=" + _draw(r, string.ascii_lowercase, 10),
    "yaml": lambda r: "user: root\npass" + "word: " + _password(r),
    "json_text": lambda r: json.dumps({"user": "x", "api" + "Key": _draw(r, _B62, 20)}),
    "header": lambda r: "X-Api" + "-Key: " + _draw(r, _HEX, 32),
    "token_header": lambda r: "Authorization: tok" + "en " + _draw(r, _HEX, 40),
    "env_prefix": lambda r: "PGPASS" + "WORD=" + _draw(r, _B62, 12) + "9x psql -h db",
    "spoken": lambda r: "the pass" + "word is " + _draw(r, _B62, 12) + "9xB",
    "netrc": lambda r: "machine x login joe pass" + "word " + _draw(r, _B62, 12) + "9xB",
    "quoted": lambda r: "export DB_PASS" + "WORD='" + _draw(r, string.ascii_lowercase, 10) + "'",
    "query": lambda r: "GET /v1/x?access" + "_token=" + _draw(r, _URL64, 32) + "&page=2",
}

_NAMES = (
    *("password", "passwd", "passphrase", "private_key", "privateKey", "api_key", "apiKey"),
    *("API-KEY", "access_key", "secret_key", "client_secret", "access_token", "refresh_token"),
    *("id_token", "authorization", "Authorization", "secret", "db_password", "DB_PASSWORD"),
    *("AWS_SECRET_ACCESS_KEY", "SecretAccessKey", "x-api-key", "seed_phrase", "mnemonic"),
    *("keystorePassword", "api key", "PGPASSWORD", "auth_token", "session_token", "token"),
    *("github_token", "jwt_secret", "webhookSecret", "MYSQL_PWD", "root_pass", "encryption_key"),
    *("privatekey", "seedPhrase", "recovery_phrase", "password2", "new_password", "private-key"),
)


def credentials(rng: Random) -> Iterator[tuple[str, Json]]:
    """One credential of each kind, alone and in surroundings: (kind, JSON value)."""
    for kind, make in _SHAPES.items():
        yield kind, make(rng)
        yield f"{kind}/log", {"level": "info", "lines": ["started", f"got {make(rng)} ok"]}
        yield f"{kind}/argv", {"kind": "run_program_v1", "argv": ["run", make(rng)]}
    for name in _NAMES:
        value = _draw(rng, _B62, 24) + "4d"
        yield f"key:{name}", {name: value}
        yield f"deep:{name}", {"config": [{"db": {"host": "x", name: value}}]}
        yield f"env:{name}", {"env": [{"name": name, "value": value}]}
    for name in ("password", "api-key", "secret-key", "private-key", "passphrase"):
        yield f"argv:{name}", {"argv": ["login", f"--{name}", _draw(rng, _B62, 12), "-v"]}
    yield "hex_under_key", {"private_key": "0x" + _draw(rng, _HEX, 64)}
    yield "weak_password", {"password": "hunter"}
    yield "list", {"passwords": ["correct horse battery staple"]}
    yield "words", {"words": list(phrase(rng).split())}
    yield "in_a_key", {"ghp" + "_" + _draw(rng, _B62, 36): True}
    yield "jwk", {"kty": "OKP", "crv": "Ed25519", "d": _url64(rng.randbytes(32))}


def harmless_lines() -> list[str]:
    """Lines that real tools print, most of them about keys, passwords, tokens and digests."""
    text = Path(__file__).with_name("harmless.txt").read_text("utf-8")
    return [line for line in text.splitlines() if line]


def harmless_values(rng: Random) -> Iterator[tuple[str, Json]]:
    """JSON that looks like a secret and is none: (what it is, JSON value)."""
    digest = _draw(rng, _HEX, 64)
    yield "sha256", {"artifact_id": digest, "digest": "sha256:" + digest, "raw": digest}
    yield "tx", {"tx_hash": "0x" + digest, "token": "0x" + digest[:40]}
    yield "commit", {"commit": digest[:40], "short": digest[:7]}
    yield "store path", "/nix/store/" + _draw(rng, "0123456789abcdfghijklmnpqrsvwxyz", 32) + "-hi-2"
    yield "uuid", {"id": f"{digest[:8]}-{digest[:4]}-4{digest[:3]}-8{digest[:3]}-{digest[:12]}"}
    yield "sri", {"integrity": "sha512-" + _b64(rng.randbytes(64))}
    yield "nar", {"narHash": "sha256-" + _b64(rng.randbytes(32))}
    yield "image", {"png": "iVBORw0KGgoAAAANSUhEUgAA" + _b64(rng.randbytes(600))}
    certificate = _pem(rng, "CERTIFICATE")
    yield "certificate", {"cert": certificate, "data": _b64(certificate.encode())}
    yield "public key", {"public_key": _pem(rng, "PUBLIC KEY")}
    yield "ssh public key", {"key": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5" + _b64(rng.randbytes(38))}
    yield (
        "age recipient",
        {"recipient": "age1" + _draw(rng, "qpzry9x8gf2tvdw0s3jn54khce6mua7l", 58)},
    )
    yield "xpub", {"xpub": "xpub661MyMwAqRbc" + _draw(rng, _B58, 95)}
    yield (
        "keystore",
        {
            "address": digest[:40],
            "version": 3,
            "crypto": {
                "cipher": "aes-128-ctr",
                "ciphertext": digest,
                "cipherparams": {"iv": digest[:32]},
                "kdf": "scrypt",
                "kdfparams": {"n": 262144, "r": 8, "p": 1, "dklen": 32, "salt": digest[::-1]},
                "mac": digest,
            },
        },
    )
    yield (
        "schema",
        {
            "type": "object",
            "required": ["username", "password"],
            "properties": {"password": {"type": "string", "description": "The password to use."}},
        },
    )
    harmless_fields: dict[str, Json] = {
        "password_file": "/run/pw", "password_policy": "strict-2024", "passwordless": "yes1234567",
        "api_key_id": "key_0123456789abcdef", "token_count": 123, "token_type": "bearer",
        "private_key_path": "/home/a/.ssh/id_ed25519", "public_key": digest, "authorization": 3,
        "Authorization": "Basic", "secret": "/run/secrets/db", "api_key": "${API_KEY}",
        "client_secret": "vault:kv/app#secret", "passphrase": "env:PASSPHRASE", "token": "USDC",
        "mnemonic": "vpaddd", "db_password": "<redacted>", "access_token": None, "password": True,
        "next_page_token": digest, "csrf_token_name": "csrf", "secret_name": "db-credentials-v2",
        "PASSWORD": "PASSWORD", "passwd": "********", "secret_key": "{{ vault_secret_key }}",
        "refresh_token": "", "id_token": "$ID_TOKEN", "has_password": "yes", "pwd": "/srv/app2/x",
        "tokens": ["a", "b"], "auth": "required", "tokenizer": "cl100k_base_2023_v1",
        "forgot_password": "Forgot your password?", "password_hash": digest,
    }  # fmt: skip
    for name, value in harmless_fields.items():
        yield f"field {name}", {name: value}
    for line in (
        "Enter password:", "the Bearer token is missing", "password: the password of the user",
        "use --password-file FILE or --password-stdin", "--passphrase string", "token=TOKEN",
        "postgres://app:${PASSWORD}@db/app", "https://user:password@example.org/", "Basic usage",
        "postgres://app@db:5432/app", "-----BEGIN PRIVATE KEY----- starts such a file",
        "password=None, api_key=os.environ['KEY']", "Authorization: Basic <credentials>",
        "risk-based-authentication-2024-11-01-final", "npm_config_registry_auth_type=legacy",
    ):  # fmt: skip
        yield "text", line
