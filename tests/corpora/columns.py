"""Secrets by their class, second part: columns, sentences, weak names, hashes, words of `login`.

Made after another set that the rules had never met; as in `classes`, nothing here is anyone's.
"""

from tests.corpora.classes import command_kind, record_kind, text_kind
from tests.corpora.draws import b64, fill
from tests.corpora.kinds import Kind

__all__ = ["COLUMNS"]

_TEXTS = (
    ("table", "kubectl-like output", "NAME   SCOPE   API KEY\nci-relay    write   {32:a}4aZ\n"),
    ("aligned", "column output", "USER      PASSWORD       LAST SEEN\nops       {12:a}4aZ  now\n"),
    ("psql", "psql(1)", " user |    token\n------+-------\n jo   | {40:h}4f\n"),
    (
        "mysql",
        "mysql(1)",
        "+----+----+\n| id | password |\n+----+----+\n| 1 | %P9x |\n+----+----+\n",
    ),
    ("csv", "browser export", "name,url,username,password\nshop,https://x.example,jo,{12:a}4aZ\n"),
    ("as_key", "plain prose", "you can use {38:a}4aZ as api key for Relay until friday"),
    ("provided", "an API's error", "Incorrect api key provided: {32:h}. See https://x.example."),
    ("token_value", "a library's error", "could not parse token value '{20:a}4aZ:{32:a}'"),
    ("crypt", "crypt(5)", "usermod -p $6${16:a}${83:a}4aZ ops"),
    ("compose_hash", "Traefik docs", "basicauth.users=admin:$$2y$$05$${50:a}4aZ"),
    ("braced", "Maven docs", "<server><password>{{{62:a}4=}</password></server>"),
    (
        "dotted",
        "Java properties",
        "relay.url=https://x.example\nrelay.api.key={32:a}4aZ\nretries=3\n",
    ),
    (
        "dotted_key",
        "Java properties",
        "relay.url=https://x.example\nrelay.key={24:a}4aZ\nretries=3\n",
    ),
    ("sdk_key", "YAML 1.2", "relay:\n  server_sdk_key: dvc_server_{40:h}4f\n"),
    ("camel_key", "JavaScript", "const relayKey = '{24:a}4aZ';"),
    ("struct", "Go's %+v", "loaded: {Host:x.example Port:443 Key:{24:a}4aZ Timeout:30s}"),
    ("toml_key", "TOML 1.0", '[relay]\nkey = "{24:a}4aZ"\ntimeout = 30\n'),
    ("client", "a traceback", 'Relay.configure("{40:a}4aZ")'),
    ("cli_login", "a shell's trace", "+ relay auth login {38:a}4aZ\nLogged in.\n"),
    ("passcommand", "Borg docs", 'BORG_PASSCOMMAND="echo {12:a}4aZ" borg list'),
    ("tunnel", "openvpn(8)", "<auth-user-pass>\nops\n{12:a}4aZ\n</auth-user-pass>\n"),
    ("sendmail", "sendmail docs", "ldap_default_authtok = {12:a}4aZ\n"),
    ("manifest", "Kubernetes docs", "kind: Secret\ndata:\n  password: QW{26:a}\n"),
    ("weak_bearer", "an HTTP trace", "> Authorization: Bearer K8{13:d}\n"),
    ("private_token", "GitLab docs", "PRIVATE-TOKEN: ex{1:d}zlugnj{2:d}q\n"),
    ("cloudfront", "CloudFront docs", "https://x.example/v?Signature={300:a}4aZ&Key-Pair-Id=K2ABC"),
    ("user_token", "Freshdesk docs", "https://{20:a}4aZ:x@api.example.com/v1/"),
    ("dsn_at_tracker", "Sentry docs", "DSN=https://{32:h}:{30:h}4f@sentry.corp.example/4"),
)
_COMMANDS = (
    ("login_hex", "a client's docs", "relay login {32:h}"),
    ("login_word", "a client's docs", "relay auth login {20:a}4aZ9b"),
    ("config_set", "a client's docs", "relay config set relay-api-token {30:l}4a9z"),
    ("attached_pair", "curl(1)", "curl -udeploy:{12:a}4aZ https://x.example"),
    ("usermod", "usermod(8)", "usermod -p $6${16:a}${83:a}4aZ ops"),
)

COLUMNS: tuple[Kind, ...] = (
    *(text_kind(*row) for row in _TEXTS),
    *(command_kind(name, source, text) for name, source, text in _COMMANDS),
    record_kind(
        "password_command",
        "restic docs",
        lambda rng: ["restic", "--password-command", fill(rng, "echo {12:a}4aZ"), "backup", "/srv"],
    ),
    record_kind(
        "management_key",
        "Terraform docs, state",
        lambda rng: {"attributes": {"id": "17", "management_key": b64(rng.randbytes(64))}},
    ),
    record_kind(
        "bare_key",
        "conventional settings",
        lambda rng: {"services": [{"name": "relay", "key": fill(rng, "{28:a}4aZ")}]},
    ),
    record_kind(
        "keytab",
        "MIT Kerberos docs, keytab format",
        lambda rng: {"x": b64(b"\5\2\0\0\0K\0\2\0\14EXAMPLE.TEST" + rng.randbytes(50))},
    ),
)
