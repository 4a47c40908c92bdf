"""Secrets by the class of their place: options, neighbours, announcements, URLs, keys of chains.

Made after a set that the rules had never met was missed by class and not by issuer.  The
passwords are as people choose them; nothing here belongs to anyone.
"""

from collections.abc import Callable
from random import Random

from mfm_ops.machine.json_rules import Json
from tests.corpora.draws import b64, bech32, fill, password
from tests.corpora.kinds import Kind

__all__ = ["CLASSES", "chosen", "command_kind", "record_kind", "text_kind"]

_WORDS = ("Winter", "Dragon", "Backup", "Falcon", "Welcome", "Castle")
_FAVOURITES = ("hunter2", "P@ssw0rd123", "letmein42", "Tr0ub4dor&3", "s3cr3tpw", "zaq12wsx")
_UUID = "{8:h}-{4:h}-4{3:h}-a{3:h}-{12:h}"


def chosen(rng: Random) -> str:
    """A password that a generator or a person made, favourites of the dictionaries among them."""
    word = rng.choice(_WORDS) + str(rng.randint(2015, 2030)) + rng.choice(("!", "#", "_x"))
    return rng.choice((password(rng), word, rng.choice(_FAVOURITES), fill(rng, "{20:a}")))


# Commands, as words; `%P` is a chosen password.
_COMMANDS = (
    ("aws_configure", "AWS CLI reference", "aws configure set aws_secret_access_key {40:b}"),
    ("mc_alias", "MinIO client docs", "mc alias set prod https://s3.example.com {20:U} {38:a}q7"),
    ("unseal", "Vault docs", "vault operator unseal {42:a}9x"),
    ("add_user", "RabbitMQ docs", "rabbitmqctl add_user app {20:a}x9Q"),
    ("nmcli", "nmcli(1)", "nmcli dev wifi connect office password {16:a}1aZ"),
    ("poetry", "Poetry docs", "poetry config http-basic.internal ops {24:a}4aZ9b"),
    ("net_user", "Windows commands", "net user ops {20:a}4aZ9b /add"),
    ("unlock", "Bitwarden CLI docs", "bw unlock {20:a}4aZ9b"),
    ("dash_p", "twine docs", "twine upload -u ops -p %P dist/app.tar.gz"),
    ("dash_p_equals", "docker login docs", "docker login -u=acme+robot -p=%P quay.example"),
    ("mqtt", "mosquitto_pub(1)", "mosquitto_pub -u sensor -P %P -t a/b -m x"),
    ("sqlcmd", "sqlcmd docs", "sqlcmd -S db1 -U sa -P %P -Q SELECT"),
    ("codecov", "Codecov uploader docs", f"codecov upload-process -t {_UUID}"),
    ("snmp", "snmpcmd(1)", "snmpwalk -v3 -u ops -a SHA -A {16:a}1aZ9b -x AES -X {16:a}1aZ9b db1"),
    ("etcd_pair", "etcdctl docs", "etcdctl --user root:%P get /"),
    ("http_pair", "HTTPie docs", "http -a jo:%P https://x.example.com"),
    ("keygen", "ssh-keygen(1)", "ssh-keygen -t ed25519 -N %P -f id"),
    ("literal", "kubectl docs", "kubectl create secret generic db --from-literal=password=%P"),
    ("helm_set", "Helm docs", "helm install x --set auth.rootPassword=%P"),
    ("ssm_put", "AWS CLI", "aws ssm put-parameter --name /db/x --type SecureString --value %P"),
    ("kv_put", "Vault docs", "vault kv put secret/db value={32:a}4aZ9b"),
)
# Texts.
_TEXTS = (
    ("sasl_passwd", "Postfix docs", "[smtp.example.com]:587 relay@example.com:%P\n"),
    ("chpasswd_list", "cloud-init docs", "chpasswd:\n  list: |\n    ops:%P9x\n"),
    ("masterauth", "redis.conf", "bind 0.0.0.0\nmasterauth {20:a}4aZ\n"),
    ("requirepass", "redis.conf", "requirepass hunter{1:d}\nappendonly yes\n"),
    ("bindpw", "ldap.conf(5)", "binddn cn=x\nbindpw {16:a}4aZ\n"),
    ("router", "Cisco IOS docs", "username admin privilege 15 password 7 07{16:H}F4\n"),
    ("acl_user", "Redis ACL docs", "user app on >{20:a}4aZ ~* +@all\n"),
    (
        "temporary",
        "MySQL docs",
        "A temporary password is generated for root@localhost: {10:a}*4aZ\n",
    ),
    (
        "next_line",
        "Jenkins docs",
        "Please use the following password:\n\n{32:h}\n\nIt is also in x\n",
    ),
    ("new_value", "Elasticsearch docs", "Password for the user reset.\nNew value: {20:a}4aZ\n"),
    ("sentence", "plain prose", "fyi the root password for web-3 is {16:a}4aZ, please rotate"),
    ("identified", "MySQL docs", "CREATE USER 'a'@'%' IDENTIFIED BY '%P';"),
    ("powershell", "PowerShell docs", "ConvertTo-SecureString '%P' -AsPlainText -Force"),
    ("string_data", "Kubernetes docs", "kind: Secret\nstringData:\n  relay: {20:a}4aZ\n"),
    ("dotenv", "dotenv docs", "A=1\nDB_PASSWORD=%P\nB=2\n"),
    ("yaml", "YAML 1.2", "db:\n  user: app\n  password: '%P'\n"),
    ("pgpassword", "PostgreSQL docs", "PGPASSWORD=%P psql -U app\n"),
    ("pat", "Azure DevOps docs", "AZURE_DEVOPS_EXT_PAT={40:a}4aZ\n"),
    ("session", "Bitwarden CLI docs", 'export BW_SESSION="{64:a}4aZ=="\n'),
    ("header_key", "plain HTTP", "X-Relay-Key: {32:a}4aZ\n"),
    ("goog", "Cloud Storage docs", "https://s.example.com/f?X-Goog-Signature={256:h}4f&x=1"),
    ("hook", "Mattermost docs", "https://chat.example.com/hooks/{22:l}4a9b"),
    ("rpc_path", "Infura docs", "https://mainnet.example.io/v3/{32:h}"),
    ("code", "RFC 6749 §4.1.2", "https://a.example.com/cb?state=x&code={36:a}4aZ"),
    ("oracle", "Oracle JDBC docs", "jdbc:oracle:thin:scott/{12:a}@//db.example.com:1521/ORCL"),
    ("dsn_secret", "Sentry docs", "https://{32:h}:{32:h}@sentry.example.com/3"),
    ("hardhat", "Hardhat docs", "accounts: ['0x{64:h}']"),
    ("from_key", "eth-account docs", "Account.from_key('0x{64:h}')"),
    ("consul", "Consul docs", 'encrypt = "{43:b}="\n'),
    ("ceph", "Ceph docs", "[client.admin]\n\tkey = AQ{36:b}==\n"),
    ("swarm", "Docker docs", "join with SWMTKN-1-{50:l}-{25:l} now"),
    ("ganache", "Ganache docs", "Private Keys\n==========\n(0) 0x{64:h}\n"),
)


def _written(rng: Random, template: str) -> str:
    return fill(rng, template.replace("%P", "\0")).replace("\0", chosen(rng))


def command_kind(name: str, source: str, template: str) -> Kind:
    """A command, cut into its words."""

    def make(rng: Random) -> Json:
        # Cut before it is written: a password may hold anything.
        words = [_written(rng, word) for word in template.split(" ")]
        return {"program_path": "/usr/bin/env", "argv": list(words)}

    return Kind(f"class_{name}", source, make)


def text_kind(name: str, source: str, template: str) -> Kind:
    """A text that a program printed or a file holds."""

    def make(rng: Random) -> Json:
        return {rng.choice(("stdout", "content", "text")): _written(rng, template)}

    return Kind(f"class_{name}", source, make)


def record_kind(name: str, source: str, make: Callable[[Random], Json]) -> Kind:
    """A value of JSON."""
    return Kind(f"class_{name}", source, make)


CLASSES: tuple[Kind, ...] = (
    *(command_kind(*row) for row in _COMMANDS),
    *(text_kind(*row) for row in _TEXTS),
    record_kind(
        "secure_string",
        "AWS Systems Manager docs",
        lambda rng: {"Name": "/prod/x", "Type": "SecureString", "Value": chosen(rng)},
    ),
    record_kind(
        "named_value",
        "conventional list of variables",
        lambda rng: [{"name": "DB_PASSWORD", "value": chosen(rng)}],
    ),
    record_kind(
        "sensitive",
        "Terraform docs, outputs",
        lambda rng: {"outputs": {"x": {"sensitive": True, "value": chosen(rng)}}},
    ),
    record_kind(
        "random_password",
        "Terraform docs, state",
        lambda rng: {
            "type": "random_password",
            "instances": [{"attributes": {"length": 20, "result": chosen(rng)}}],
        },
    ),
    record_kind(
        "secret_object",
        "Kubernetes docs",
        lambda rng: {"kind": "Secret", "data": {"relay": b64(chosen(rng).encode())}},
    ),
    record_kind(
        "secret_id",
        "Vault docs, AppRole",
        lambda rng: {"role_id": fill(rng, _UUID), "secret_id": fill(rng, _UUID)},
    ),
    record_kind("key_array", "Solana docs", lambda rng: {"id": list(rng.randbytes(64))}),
    record_kind(
        "unlock_account",
        "geth docs, personal namespace",
        lambda rng: {
            "method": "personal_unlockAccount",
            "params": [fill(rng, "0x{40:h}"), chosen(rng), 300],
        },
    ),
    record_kind(
        "signing_key",
        "Cardano docs",
        lambda rng: {
            "type": "PaymentSigningKeyShelley_ed25519",
            "cborHex": fill(rng, "5820{64:h}"),
        },
    ),
    record_kind(
        "shell_script",
        "Vault docs, in a shell",
        lambda rng: ["sh", "-c", fill(rng, "cd /x; vault operator unseal {40:a}4aZ")],
    ),
    record_kind("sui", "Sui docs", lambda rng: "use suiprivkey1" + bech32(rng, 58)),
    record_kind(
        "macaroon",
        "LND docs",
        lambda rng: {"headers": {"Grpc-Metadata-macaroon": fill(rng, "0201036c6e64{300:h}")}},
    ),
)
