"""What stands in the places of `classes` and is harmless: references, labels, code, ciphertext."""

from random import Random

from mfm_ops.machine.json_rules import Json
from tests.corpora.draws import b64, fill, url64

__all__ = ["lookalikes"]

_UUID = "{8:h}-{4:h}-4{3:h}-a{3:h}-{12:h}"
_TEXTS = (
    *(
        "enode://{128:h}@10.0.0.1:30303",
        "https://{32:h}@errors.example.com/3",
        "git@git.example:a/b",
    ),
    *("ssh://git@git.example.com/a.git", "def login(user: str, password: str = None) -> Token:"),
    *(
        "passwd = getpass()",
        "password: Optional[str] = Field(default=None)",
        "  password=password,",
    ),
    *("self.password = password", "const { password, token } = req.body;", "secret: Buffer"),
    *(
        'password := os.Getenv("DB_PASSWORD")',
        "func Login(name, password string) error",
        "x: string",
    ),
    *("password VARCHAR(255) NOT NULL", "-p, --password PASSWORD  the password", "token: string;"),
    *("docker login -u USERNAME -p PASSWORD", "kpasswd      464/tcp", "passwd:     compat systemd"),
    *("password: !vault |\n  $ANSIBLE_VAULT;1.1;AES256\n  {80:h}\n", "password=%DB_PASS%"),
    *(
        "password: ENC[AES256_GCM,data:{20:b},type:str]",
        "DB_PASSWORD=changeme\n",
        "password: #{{x}}",
    ),
    *("sed -i 's/password: .*/password: REDACTED/' x.yml", "arn:aws:x:eu:1:secret:MyDb-a1B2c3"),
    *(
        '"ARN": "arn:aws:secretsmanager:us-west-2:1234:secret:MyTestSecret-a1b2c3"',
        "using password: YES",
    ),
    *("Token ID: " + _UUID, "token accessor: {24:a}", "password last changed: Mar04,2026"),
    *(
        "Password authentication: Kerberos5",
        "secret: db-creds-x7k2p",
        "Secret type: kubernetes.io/tls",
    ),
    *("SHA256 of token.txt: {64:h}", "Key fingerprint is SHA256:{43:b}", "password: sha256:Abc"),
    *(
        "https://x.example.com/v1/0x{64:h}",
        "https://x.example.com/hooks/list",
        "?code=404&state=done",
    ),
)
_MORE_TEXTS = (
    "pkcs11:model=Y;manufacturer=piv_II;serial=10842138;token=PIV_II%20%28Holder%20pin%29;id=%01",
    *("pbkdf2-password 1.2.1", '"pbkdf2-password": "^1.2.1"', "token_type=Bearer expires_in=3600"),
    "mutation Login($password: String!) { login(password: $password) { token expiresAt } }",
    *("char*password=1;", "\tSecretItem *item;\n\tSecretValue *secret;\n", "api_key: sk-...9f2A"),
    *("token: ghp_****abcd", '{ accessKey: "s" }', "password = g_strdup(item->password);"),
    "sec:u:4096:1:{16:H}:1600000000:::u:::scESC:::+:::23::0:\nfpr:::::::::{40:H}:",
    *("public key: {43:b}=", "peer: {43:b}=\n  preshared key: (hidden)", "cache_key={40:h}"),
    *("key: {40:h}", "object_key: images/2026/IMG_1234.jpg", "key=ssh-ed25519 AAAAC3Nza{60:b}"),
    *("NAME   TYPE     SECRETS   AGE\nops    Opaque   1         3d\n", "commit {40:h} as usual"),
    "ID        PASSWORD EXPIRES   LAST LOGIN\nops       2026-11-22         2026-11-20\n",
    *(
        "| Token | Meaning |\n|---|---|\n| IDENT | a name |\n",
        "s/(a)(b)/$1$2/",
        "last login 2 h ago",
    ),
    *("user login failed", "Client('https://x.example')", 'connect("db-1.internal.example")'),
    *(
        "the token digest {64:h}",
        "x = [\n    'token',\n    'datetime2fromparts',\n]",
        "pubkey: {96:h}",
    ),
)
_DUMPS = (
    *("ED25519 Public-Key:\npub:\n    12:ab:34:cd:56:ef:78:90:12:", "Private-Key: (2048 bit)\n"),
    *("CLIENT_RANDOM <client_random> <master_secret>", "{64:h} {64:h}", "RSA key {64:h} {64:h}"),
    *("x.example\tTRUE\t/\tFALSE\t0\tlang\tde\n", "gene\tTRUE\tchr1\tFALSE\t12\tx\t{64:h}"),
    *("PASS tests/login.test.js\n", "USER jo\n331 Go on\nPASS XXXX\n", "a1 LOGIN completed\n"),
    *("250-AUTH PLAIN LOGIN CRAM-MD5\n", "AUTH LOGIN\n334 UGFzc3dvcmQ6\n*\n501 cancelled\n"),
    *("root:*:19000:0:99999:7:::\ndaemon:*:19000:0:99999:7:::\n", "x-1:{43:b}="),
    *(" /etc/pam.d/passwd {32:h}\n /etc/pam.d/chpasswd {32:h}\n", "HAVE_STRUCT_PASSWD = 1\n"),
    "Key            Value\n---            -----\ndisplay_name   token\nentity_id      " + _UUID,
    "uid:-::::1674301533::{40:H}::Signing Key (12) <a@b.example>::::0:\nsub:-:4096:1:{16:H}:17:::",
    *("s.TestCaseWithSecretsInIt2 = None", "s.prototype.hasOwnPropertyDescriptorsX,n=1"),
    *("passwd: RMD160 = C554 262F 50D5", "INSERT INTO keys (id, api_key) VALUES (1, NULL);"),
    "COPY public.clients (id, name, secret) FROM stdin;\n1\tapp\t\\N\n\\.\n",
    "encryptedData:\n  password: AgB{400:b}\n",
)
_COMMANDS = (
    *(
        "git commit -S -m Login2Page",
        "pytest -k test_Login2Token",
        "docker run -u 1000:1000 -p 8080:80 x",
    ),
    *(
        "docker compose -p myproject up",
        "ssh -l jo -p 2222 h",
        "psql -U app -p 5433",
        "tar -x -T L2.txt",
    ),
    *(
        "mysql -u root -p shop",
        "kubectl get secret tls-Abc2x",
        "git config user.signingkey 3AA5C34371567BD2",
    ),
    *(
        "kubectl config use-context gke_prod_Europe1",
        "useradd -u 1001 -s /bin/bash jo2",
        "cast tx 0x{64:h}",
    ),
    *(
        "cast send --password-file /run/pw 0x{40:h}",
        "aws s3 cp s3://Bucket2/Key2File .",
        "vault token lookup",
    ),
)
_LABELS = (
    *("is required", "Must be at least 8 characters", "Mot de passe", "Passwort vergessen?"),
    *("Contrase\xf1a", "required|min:8", "Password"),
)
_VALUES: tuple[Json, ...] = (
    {"errors": {"password": ["is too short (minimum is 8 characters)", "can't be blank"]}},
    {"passphrase": "Frase de contrase\xf1a"},
    {"secretKey": "password"},
    {"passwordRef": {"secret": "db"}},
    {"secretKeyRef": {"name": "db", "key": "password"}},
    {"type": "secret", "value": "db-creds"},
    {"type": "password", "placeholder": "Enter your password"},
    {"name": "password_reset_ttl", "value": "3600"},
    {"name": "PASSWORD", "value": "", "sensitive": True},
    {"DESKTOP_SESSION": "ubuntu", "PRIMARY_KEY": "id"},
    {"method": "eth_call", "params": ["0x70a08231", "latest"]},
    {"bytes": list(range(32))},
)


def lookalikes(rng: Random) -> list[Json]:
    """All of them, drawn anew."""
    texts: list[Json] = [{"stdout": fill(rng, text)} for text in (*_TEXTS, *_MORE_TEXTS, *_DUMPS)]
    commands: list[Json] = [
        {"argv": [fill(rng, word) for word in command.split(" ")]} for command in _COMMANDS
    ]
    drawn: list[Json] = [
        {"annotations": {"checksum/secret": fill(rng, "{64:h}")}},
        {"encryptedData": {"password": fill(rng, "AgB{400:b}")}},
        {"Idempotency-Key": fill(rng, _UUID), "CACHE_KEY": fill(rng, "{40:h}")},
        {"key": fill(rng, "linux-cargo-{64:h}")},
        {"client_token": fill(rng, "hmac-sha256:{64:h}")},
        {"pub_key": {"type": "secp256k1", "key": b64(rng.randbytes(33))}},
        {"sig": f"cache-1:{b64(rng.randbytes(63) + bytes([rng.randrange(16)]))}"},
        {"program_path": "/usr/bin/mysql", "argv": ["-uroot", "-p", "shop"]},
        {"program_path": "/usr/bin/mkdir", "argv": ["-p", "/srv/p:x"]},
        {"accounts": [fill(rng, "0x{40:h}")]},
        {"kty": "RSA", "n": url64(rng.randbytes(256)), "e": "AQAB"},
        {"signature": url64(rng.randbytes(64)), "digest": url64(rng.randbytes(32))},
        {"secret": "Geheimnis", "key": fill(rng, "{40:h}"), "sort_key": fill(rng, "{30:a}")},
    ]
    labels: list[Json] = [{"password": label} for label in _LABELS]
    return [*texts, *commands, *labels, *_VALUES, *drawn]
