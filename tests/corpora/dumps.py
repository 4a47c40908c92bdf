"""Secrets by their class, third part: dumps of keys, dialogues, jars, programs beside arguments.

Made after a set that was written before its author had seen a rule; nothing here is anyone's.
"""

from collections.abc import Callable
from random import Random

from mfm_ops.machine.json_rules import Json
from tests.corpora.classes import record_kind, text_kind
from tests.corpora.draws import b64, fill
from tests.corpora.kinds import Kind

__all__ = ["DUMPS"]

# A program has a field of its own in mfm's requests: its name is no word of the list.
_CALLS = (
    ("beside_mysql", "mysql(1)", "mysql -h db -uroot -p{12:a}4aZ -e status"),
    ("beside_sshpass", "sshpass(1)", "sshpass -p {10:a}4aZ ssh root@10.0.0.4"),
    ("beside_htpasswd", "htpasswd(1)", "htpasswd -bc /etc/x jo {12:a}4aZ"),
    ("beside_smbclient", "smbclient(1)", "smbclient //srv/share -U jo%{12:a}4aZ"),
    ("beside_7z", "7z(1)", "7z a -p{12:a}4aZ x.7z dir"),
    ("beside_curl", "curl(1)", "curl -b sessionid={32:l}4a9z https://x.example"),
    ("beside_lftp", "lftp(1)", "lftp -u jo,{12:a}4aZ ftp.example"),
    ("beside_slash", "xfreerdp(1)", "xfreerdp /v:host /u:jo /p:{12:a}4aZ"),
    ("beside_verb", "useradd(8)", "useradd jo {12:a}4aZ!"),
    ("padded_key", "influx(1)", "influx write -t {86:b}== -b x"),
    ("registry_pair", "bundle-config(1)", "bundle config set gems.example ci:aB3{14:a}7kQ9x"),
    ("cipher_key", "openssl-enc(1)", "openssl enc -aes-256-cbc -K {64:H} -iv {32:H}"),
)
_TEXTS = (
    ("key_log", "NSS key log format", "CLIENT_RANDOM {64:h} {96:h}\n"),
    ("key_log_13", "NSS key log format", "SERVER_TRAFFIC_SECRET_0 {64:h} {64:h}\n"),
    ("key_log_rsa", "NSS key log format", "RSA {16:h} {96:h}\n"),
    ("session_key", "gpg(1)", "gpg: session key: '9:{64:H}'\n"),
    (
        "jar",
        "curl's cookie file format",
        "# Netscape HTTP Cookie File\n\n.x.example\tTRUE\t/\tTRUE\t1798761600\tsid\t{32:l}4a9z\n",
    ),
    (
        "jar_http_only",
        "curl's cookie file format",
        "#HttpOnly_x.example\tFALSE\t/\tTRUE\t0\tSESSION\t{32:h}4f\n",
    ),
    ("imap_login", "RFC 9051 §6.2.3", 'a1 LOGIN "jo" "{12:a}4aZ"\n'),
    ("pop_pass", "RFC 1939 §7", "USER jo\n+OK\nPASS {12:a}4aZ\n+OK\n"),
    ("ftp_pass", "RFC 959 §4.1.1", "---> USER jo\n331 Go on\n---> PASS {12:a}4aZ\n230 ok\n"),
    (
        "pair_table",
        "OpenStack CLI",
        "+---+---+\n| Field | Value |\n+---+---+\n| secret | {32:h} |\n",
    ),
    (
        "boxed",
        "npm-token(1)",
        "\u2502 token    \u2502 {32:h}4f \u2502\n\u2502 readonly \u2502 false \u2502\n",
    ),
    ("tabbed_head", "pppd(8)", "# client\tserver\tsecret\tIP addresses\nbob\t*\t{12:a}4aZ\t*\n"),
    ("nested", "Windows answer files", "<UserPassword><Value>{12:a}4aZ</Value></UserPassword>"),
    ("nested_key", "KeePass XML", "<Key>Password</Key><Value Protect='True'>{12:a}4aZ</Value>"),
    ("tls_psk", "Zabbix docs", "TLSPSKIdentity=PSK 1\nTLSPSK={64:h}\n"),
    ("legacy_vault", "Vault docs before 1.10", "log in with s.aB3{16:a}7kQ9x until friday"),
    (
        "spaced_id",
        "Nomad CLI",
        "Accessor ID  = {8:h}\nSecret ID    = {8:h}-{4:h}-4{3:h}-a{3:h}-{12:h}\n",
    ),
    ("signify", "signify(1)", "untrusted comment: signify secret key\nRWRCSwAAACo{120:b}==\n"),
    ("go_dsn", "go-sql-driver docs", "dsn=app:{12:a}4aZ@tcp(db:3306)/shop"),
    ("ssha512", "Dovecot docs", "jo:{SSHA512}{92:b}\n"),
    (
        "copied",
        "pg_dump(1)",
        "COPY public.clients (id, name, secret) FROM stdin;\n1\tapp\t{64:h}\n",
    ),
    ("inserted", "SQL", "INSERT INTO keys (id, api_key) VALUES (1, '{30:a}4aZ'),(2, NULL);"),
    ("piped_sudo", "chpasswd(8)", "echo root:{12:a}4aZ | sudo chpasswd"),
    ("native_hash", "MySQL docs", "IDENTIFIED WITH 'mysql_native_password' AS '*{40:H}'"),
)


def _call(template: str) -> Callable[[Random], Json]:
    def make(rng: Random) -> Json:
        program, *words = (fill(rng, word) for word in template.split(" "))
        return {"program_path": f"/usr/bin/{program}", "argv": list(words)}

    return make


def _bytes(rng: Random, head: str, size: int) -> Json:
    rows = [":".join(f"{byte:02x}" for byte in rng.randbytes(15)) for _ in range(size // 15)]
    return {"stdout": f"{head}\n" + "".join(f"    {row}:\n" for row in rows)}


def _signing_key(rng: Random) -> str:
    # The last byte of a public key may be any; below 16 it could end a signature.
    return f"cache.example-1:{b64(rng.randbytes(63) + bytes([rng.randint(16, 255)]))}"


def _plain(rng: Random) -> str:
    return b64(fill(rng, "\0jo\0{12:a}4aZ").encode())


DUMPS: tuple[Kind, ...] = (
    *(record_kind(name, source, _call(text)) for name, source, text in _CALLS),
    *(text_kind(*row) for row in _TEXTS),
    record_kind(
        "dump_ed25519",
        "openssl-pkey(1)",
        lambda rng: _bytes(rng, "ED25519 Private-Key:\npriv:", 30),
    ),
    record_kind("dump_rsa", "openssl-pkey(1)", lambda rng: _bytes(rng, "privateExponent:", 255)),
    record_kind("dump_dh", "openssl-pkey(1)", lambda rng: _bytes(rng, "    private-key:", 225)),
    record_kind("nix_signing_key", "nix-store(1)", lambda rng: {"stdout": _signing_key(rng)}),
    record_kind(
        "auth_plain", "RFC 4954 §4, RFC 4616", lambda rng: {"trace": [f"AUTH PLAIN {_plain(rng)}"]}
    ),
    record_kind(
        "auth_login",
        "RFC 4954 §4",
        lambda rng: {
            "stdout": f"<~ 334 UGFzc3dvcmQ6\n ~> {b64(fill(rng, '{12:a}4aZ').encode())}\n"
        },
    ),
    record_kind(
        "auth_xmpp",
        "RFC 6120 §6.4.2",
        lambda rng: {"x": f"<auth xmlns='x' mechanism='PLAIN'>{_plain(rng)}</auth>"},
    ),
    record_kind(
        "exported_cookie",
        "HAR 1.2",
        lambda rng: [{"name": "sid", "value": fill(rng, "{40:a}4aZ"), "httpOnly": True}],
    ),
    record_kind(
        "set_cookie_pair",
        "RFC 6265 §4.1",
        lambda rng: {"headers": [["Set-Cookie", fill(rng, "sid={32:l}4a9z; Path=/")]]},
    ),
    record_kind(
        "chpasswd_input",
        "chpasswd(8)",
        lambda rng: {
            "program_path": "/usr/sbin/chpasswd",
            "argv": [],
            "stdin_json": fill(rng, "root:{12:a}4aZ\njo:{12:a}4aZ\n"),
        },
    ),
    record_kind(
        "auth_bearer",
        "RFC 7628",
        lambda rng: {
            "x": "AUTH XOAUTH2 " + b64(fill(rng, "user=jo\1auth=Bearer {60:a}\1\1").encode())
        },
    ),
    record_kind(
        "kept_secret",
        "Azure Key Vault docs",
        lambda rng: {"id": "https://x.example/secrets/db/1", "value": fill(rng, "{16:a}4aZ")},
    ),
)
