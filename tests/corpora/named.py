"""Secrets without a shape: only the name beside the value says what it is.

Each name is that of a real program's or service's setting; the value is drawn in the service's
form, and put where programs keep such pairs.
"""

import json
from random import Random

from mfm_ops.machine.json_rules import Json
from tests.corpora.draws import fill, password
from tests.corpora.kinds import Kind

__all__ = ["NAMED", "carried"]

_UUID = "{8:h}-{4:h}-4{3:h}-a{3:h}-{12:h}"
# An empty template asks for a password.
_NAMES: tuple[tuple[str, str, str], ...] = (
    ("AWS_SECRET_ACCESS_KEY", "AWS CLI guide, environment variables", "{40:b}"),
    ("AWS_SESSION_TOKEN", "AWS CLI guide, environment variables", "IQoJb3JpZ2luX2Vj{300:b}"),
    ("DD_API_KEY", "Datadog docs, API and application keys", "{32:h}"),
    ("DD_APP_KEY", "Datadog docs, API and application keys", "{40:h}"),
    ("CLOUDFLARE_API_TOKEN", "Cloudflare docs, API tokens", "{40:u}"),
    ("CF_API_KEY", "Cloudflare docs, global API key", "{37:h}"),
    ("HEROKU_API_KEY", "Heroku docs, authentication", _UUID),
    ("TWILIO_AUTH_TOKEN", "Twilio docs, auth tokens", "{32:h}"),
    ("WANDB_API_KEY", "Weights & Biases docs", "{40:h}"),
    ("COHERE_API_KEY", "Cohere docs", "{40:a}"),
    ("MISTRAL_API_KEY", "Mistral docs", "{32:a}"),
    ("CIRCLE_TOKEN", "CircleCI docs", "{40:h}"),
    ("SNYK_TOKEN", "Snyk docs", _UUID),
    ("LINODE_CLI_TOKEN", "Linode CLI docs", "{64:h}"),
    ("HCLOUD_TOKEN", "Hetzner Cloud CLI docs", "{64:a}"),
    ("VULTR_API_KEY", "Vultr docs", "{36:U}"),
    ("FASTLY_API_TOKEN", "Fastly docs", "{32:u}"),
    ("ALGOLIA_ADMIN_KEY", "Algolia docs", "{32:h}"),
    ("SECRET_KEY_BASE", "Rails guides, credentials", "{128:h}"),
    ("DJANGO_SECRET_KEY", "Django docs, SECRET_KEY", "{50:s}"),
    ("FLASK_SECRET_KEY", "Flask docs, SECRET_KEY", "{48:h}"),
    ("JWT_SECRET", "jsonwebtoken docs", "{44:b}"),
    ("SESSION_SECRET", "express-session docs", "{32:a}"),
    ("ENCRYPTION_KEY", "Laravel docs, encryption", "base64:{43:b}="),
    ("NEXTAUTH_SECRET", "NextAuth.js docs", "{43:b}="),
    ("OAUTH_CLIENT_SECRET", "RFC 6749 §2.3.1", "{40:a}"),
    ("GITHUB_WEBHOOK_SECRET", "GitHub docs, webhooks", "{40:h}"),
    ("AZURE_CLIENT_SECRET", "Azure SDK docs, environment credential", "{34:s}"),
    ("MYSQL_ROOT_PASSWORD", "MySQL container docs", ""),
    ("MYSQL_PWD", "MySQL manual, environment variables", ""),
    ("POSTGRES_PASSWORD", "PostgreSQL container docs", ""),
    ("PGPASSWORD", "PostgreSQL manual, environment variables", ""),
    ("REDIS_PASSWORD", "Redis container docs", ""),
    ("RABBITMQ_DEFAULT_PASS", "RabbitMQ container docs", ""),
    ("MINIO_ROOT_PASSWORD", "MinIO docs", ""),
    ("VAULT_TOKEN", "Vault CLI docs", "s.{24:a}"),
    ("CONSUL_HTTP_TOKEN", "Consul docs", _UUID),
    ("NOMAD_TOKEN", "Nomad docs", _UUID),
    ("SENTRY_AUTH_TOKEN", "Sentry CLI docs", "{64:h}"),
    ("SMTP_PASS", "Nodemailer docs", ""),
    ("EMAIL_HOST_PASSWORD", "Django docs, settings", ""),
    ("LDAP_BIND_PASSWORD", "OpenLDAP ldap.conf(5)", ""),
    ("SSHPASS", "sshpass(1)", ""),
    ("RESTIC_PASSWORD", "restic docs, environment variables", ""),
    ("BORG_PASSPHRASE", "Borg docs, environment variables", ""),
    ("GPG_PASSPHRASE", "gpg(1), passphrase options", ""),
    ("INFURA_API_KEY", "Infura docs", "{32:h}"),
    ("ETHERSCAN_API_KEY", "Etherscan docs", "{34:U}"),
    ("TF_VAR_db_password", "Terraform docs, environment variables", ""),
    ("ANSIBLE_BECOME_PASS", "Ansible docs, become", ""),
    ("spring.datasource.password", "Spring Boot reference, data properties", ""),
    ("sasl.jaas.password", "Kafka docs, security", ""),
    ("adminPassword", "Azure Resource Manager docs", ""),
    ("clientSecret", "Microsoft Graph docs", "{40:a}"),
    ("apiKey", "Firebase docs, config object", "{39:u}"),
    ("authToken", "RFC 6750", "{40:a}"),
    ("accessToken", "RFC 6749 §5.1", "{60:u}"),
    ("refresh_token", "RFC 6749 §6", "{60:u}"),
    ("secretAccessKey", "AWS SDK for JavaScript docs", "{40:b}"),
    ("bot_token", "Slack Bolt docs", "{40:a}"),
    ("deploy-token", "GitLab docs, deploy tokens", "{20:u}"),
    ("signing-secret", "Slack docs, verifying requests", "{32:h}"),
    ("master_key", "Meilisearch docs", "{43:u}"),
    ("auth_key", "ZeroTier docs", "{32:a}"),
    ("user_password", "OpenStack docs, clouds.yaml", ""),
    ("passwd", "MySQL connector docs", ""),
    ("pwd", "SQL Server ODBC docs", ""),
    ("db_pass", "WordPress and Drupal guides", ""),
    ("x-api-key", "AWS API Gateway docs", "{40:a}"),
    ("X-Auth-Token", "OpenStack Keystone docs", "gAAAAAB{176:u}"),
    ("csrf_secret", "Django docs, CSRF", "{32:a}"),
    ("hmac_key", "RFC 2104", "{64:h}"),
    ("shared_secret", "RADIUS, RFC 2865 §3", ""),
    ("psk", "wpa_supplicant.conf(5)", "{64:h}"),
    ("wifi_password", "NetworkManager, nm-settings(5)", ""),
    ("recovery_code", "GitHub docs, 2FA recovery codes", "{5:h}-{5:h}"),
    ("pin", "SoftHSM docs, user PIN", "{6:d}"),
)


def carried(rng: Random, name: str, value: str) -> Json:
    """The pair in JSON, in a configuration text, in a shell line, in an argument list or a URL."""
    option = "--" + name.lower().replace("_", "-").replace(".", "-")
    indented = json.dumps({"settings": {"host": "db1", name: value}}, indent=2)
    forms: tuple[Json, ...] = (
        {"env": {name: value, "LANG": "C.UTF-8"}},
        {"config": [{"service": {name: value, "port": 5432}}]},
        {"stdin": f"HOST=db1\n{name}={value}\nPORT=5432\n"},
        f"export {name}='{value}'",
        {"conf": f"[main]\nhost = db1\n{name} = {value}\n"},
        {"yaml": f"db:\n  host: db1\n  {name}: {value}\n  port: 5432\n"},
        {"toml": f'[db]\nhost = "db1"\n{name} = "{value}"\n'},
        ["serve", option, value],
        ["serve", f"{option}={value}"],
        {"cmd": f"docker run -e {name}={value} image:1"},
        {"source": f'{name} = "{value}"  # set by deploy'},
        {"stdout": indented},
        {"body": json.dumps({"data": json.dumps({name: value})})},
        {"log": f'level=info msg="starting" {name}="{value}" pid=12'},
    )
    return forms[rng.randrange(len(forms))]


def _named(name: str, source: str, template: str) -> Kind:
    def make(rng: Random) -> Json:
        return carried(rng, name, fill(rng, template) if template else password(rng))

    return Kind(f"named_{name}", source, make)


NAMED: tuple[Kind, ...] = tuple(_named(*row) for row in _NAMES)
