"""The last set: written when the rules were done, to learn what they make of what they never met.

Kinds that neither half of the other corpora has; the look-alikes are in `unseen_tools.txt`.  The
rules are not fitted to it; `benchmarks/secret_scan.py` prints its figures.
"""

import json
import urllib.parse
from random import Random

from mfm_ops.machine.json_rules import Json
from tests.corpora.draws import armour, b64, fill, jwt, password, phrase, url64
from tests.corpora.kinds import Kind, planted

__all__ = ["UNSEEN"]

_UUID = "{8:h}-{4:h}-4{3:h}-a{3:h}-{12:h}"
# Issued tokens: (name, source, template).
_TOKENS = (
    ("cerebras", "Cerebras docs, API keys", "csk-{48:l}"),
    ("deepseek", "DeepSeek docs, API keys", "sk-{32:h}"),
    ("together", "Together docs, API keys", "tgp_v1_{43:u}"),
    ("voyage", "Voyage docs, API keys", "pa-{43:u}"),
    ("jina", "Jina docs, API keys", "jina_{60:a}"),
    ("firecrawl", "Firecrawl docs, API keys", "fc-{32:h}"),
    ("helicone", "Helicone docs, API keys", "sk-helicone-{7:l}-{7:l}-{7:l}-{7:l}"),
    ("apify", "Apify docs, API tokens", "apify_api_{36:a}"),
    ("clerk", "Clerk docs, secret keys", "sk_live_{42:a}"),
    ("workos", "WorkOS docs, API keys", "sk_live_{60:a}"),
    ("convex", "Convex docs, deploy keys", "prod:happy-otter-123|{100:b}="),
    ("turso", "Turso docs, auth tokens", "eyJhbGciOiJFZERTQSIsInR5cCI6IkpXVCJ9.{80:u}.{86:u}"),
    ("upstash", "Upstash docs, REST tokens", "AX{2:a}ASQg{60:a}="),
    ("axiom", "Axiom docs, API tokens", f"xaat-{_UUID}"),
    ("honeycomb_ingest", "Honeycomb docs, ingest keys", "hcaik_01{58:l}"),
    ("incident_io", "incident.io docs, API keys", "inc_{64:h}"),
    ("depot", "Depot docs, API tokens", "depot_org_{64:h}"),
    ("zuplo", "Zuplo docs, API keys", "zpka_{32:h}_{8:h}"),
    ("unkey", "Unkey docs, root keys", "unkey_{22:a}"),
    ("infisical", "Infisical docs, service tokens", "st.{24:h}.{32:h}.{32:h}"),
    ("ghost_admin", "Ghost docs, Admin API keys", "{24:h}:{64:h}"),
    ("woodpecker", "Woodpecker docs, agent tokens", "wpa_{40:a}"),
    ("snyk_service", "Snyk docs, service tokens", "snyk_sat.{8:h}.{60:u}"),
    ("lob", "Lob docs, API keys", "live_{35:h}"),
)


def _issued(name: str, source: str, template: str) -> Kind:
    def make(rng: Random) -> Json:
        return planted(rng, fill(rng, template))

    return Kind(f"unseen_{name}", source, make)


# Texts: (name, source, template); `%P` is a password.
_TEXTS = (
    ("ansible_ini", "Ansible docs, inventory", "web1 ansible_user=jo ansible_ssh_pass=%P"),
    ("ansible_yaml", "Ansible docs", "- mysql_user:\n    name: app\n    login_password: %P\n"),
    ("puppet", "Puppet docs", "  password => '%P',\n"),
    ("chef", "Chef docs", "default['db']['password'] = '%P'\n"),
    ("nix_module", "NixOS manual", '  services.x.adminPassword = "%P";\n'),
    ("terraform", "Terraform docs", 'resource "x" "y" {\n  master_password = "%P"\n}\n'),
    ("helm_values", "Helm docs", "postgresql:\n  auth:\n    postgresPassword: %P\n"),
    ("gradle", "Gradle docs", "signingPassword=%P\nmavenUser=jo\n"),
    ("sbt", "sbt docs", 'credentials += Credentials("R", "host", "jo", "%P")\n'),
    ("systemd_env", "systemd.exec(5)", "[Service]\nEnvironment=DB_PASSWORD=%P\n"),
    ("docker_secret_echo", "Docker docs", "printf '%P' | docker secret create db_password -"),
    ("htpasswd_cmd", "htpasswd(1)", "htpasswd -bc users.db jo %P"),
    ("mount_cifs", "mount.cifs(8)", "mount -t cifs //srv/x /mnt -o user=jo,password=%P"),
    ("psql_uri_args", "psql(1)", 'psql "host=db1 user=app password=%P dbname=x"'),
    ("mongosh", "mongosh docs", "mongosh --username app --password %P --host db1"),
    ("kafka_jaas", "Kafka docs", 'PlainLoginModule required username="jo" password="%P";'),
    ("hibernate", "Hibernate docs", '<property name="connection.password">%P</property>'),
    ("tomcat", "Tomcat docs", '<user username="jo" password="%P" roles="admin"/>'),
    ("firefox_login", "plain prose", "login: jo / passwort: %P"),
    ("spoken_key", "plain prose", "Here is the API key: {40:a}"),
    ("chat_token", "plain prose", "my new token is {40:h} please keep it"),
    ("git_remote", "git-remote(1)", "origin\thttps://jo:{40:a}@git.example.com/a.git (fetch)"),
    ("rsyncd", "rsyncd.conf(5)", "RSYNC_PASSWORD=%P rsync -a jo@host::mod /x"),
    ("openvpn", "OpenVPN manual", "-----BEGIN OpenVPN Static key V1-----\n{32:h}\n{32:h}\n"),
    ("svn", "svn help", "svn co --username jo --password %P https://svn.example.com/x"),
    ("lftp", "lftp(1)", "lftp -u jo,%P sftp://files.example.com"),
    ("xmpp", "libpurple accounts.xml", "<account><name>jo</name><password>%P</password></account>"),
    ("vnc_env", "x11vnc(1)", "x11vnc -passwd %P -display :0"),
    ("s3_url", "s3fs docs", "AKIA{16:2}:{40:b}"),
    ("elastic", "Elasticsearch docs", "curl -u elastic:%P -k https://localhost:9200"),
)


def _told(name: str, source: str, template: str) -> Kind:
    def make(rng: Random) -> Json:
        text = fill(rng, template.replace("%P", "\0")).replace("\0", password(rng))
        return {"stdout": text}

    return Kind(f"unseen_{name}", source, make)


def _env_list(rng: Random) -> Json:
    return {"Config": {"Env": ["PATH=/usr/bin", f"REDIS_PASSWORD={password(rng)}"]}}


def _ini_pair(rng: Random) -> Json:
    return [["user", "jo"], ["password", password(rng)]]


def _graphql(rng: Random) -> Json:
    return {"query": f'mutation {{ login(email: "a@b.c", password: "{password(rng)}") {{ id }} }}'}


def _saml_key(rng: Random) -> Json:
    return {"idp": {"sp_private_key": b64(rng.randbytes(300))}}


def _pem_one_line(rng: Random) -> Json:
    return {"env": {"TLS_KEY": armour("RSA PRIVATE KEY", rng.randbytes(300)).replace("\n", " ")}}


def _double_base64(rng: Random) -> Json:
    inner = b64(json.dumps({"client_secret": fill(rng, "{32:a}")}).encode())
    return {"data": b64(inner.encode())}


def _jwt_in_url(rng: Random) -> Json:
    return f"https://app.example.com/reset?jwt={jwt(rng)}"


def _phrase_json(rng: Random) -> Json:
    return {"backup": json.dumps({"mnemonic": " ".join(phrase(rng, 18))})}


def _form_encoded_phrase(rng: Random) -> Json:
    return {"body": "words=" + urllib.parse.quote_plus(" ".join(phrase(rng, 12)))}


def _webauthn(rng: Random) -> Json:
    return {"oauth": {"consumer_secret": fill(rng, "{50:a}"), "nonce": url64(rng.randbytes(12))}}


UNSEEN: tuple[Kind, ...] = (
    *(_issued(*row) for row in _TOKENS),
    *(_told(*row) for row in _TEXTS),
    Kind("unseen_env_list", "Docker Engine API, container inspect", _env_list),
    Kind("unseen_pairs", "conventional list of pairs", _ini_pair),
    Kind("unseen_graphql", "GraphQL specification §2.9", _graphql),
    Kind("unseen_saml_key", "ruby-saml docs", _saml_key),
    Kind("unseen_pem_one_line", "Docker docs, multi-line variables", _pem_one_line),
    Kind("unseen_double_base64", "Kubernetes docs, encoded twice", _double_base64),
    Kind("unseen_jwt_in_url", "RFC 7519", _jwt_in_url),
    Kind("unseen_phrase_json", "BIP-39", _phrase_json),
    Kind("unseen_phrase_form", "BIP-39, WHATWG URL §5", _form_encoded_phrase),
    Kind("unseen_oauth1", "RFC 5849 §1.2", _webauthn),
)
