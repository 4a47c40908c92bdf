"""Secrets in the files, headers, commands and URLs that programs really use for them.

The passwords are drawn as people choose them; the place alone tells that they are secrets.
"""

import base64
import json
import urllib.parse
from collections.abc import Callable
from random import Random

from mfm_ops.machine.json_rules import Json
from tests.corpora.draws import b64, fill, jwt, password, url64
from tests.corpora.kinds import Kind
from tests.corpora.places import COMMANDS, DSNS, FILES

__all__ = ["CARRIERS"]


def _text(template: str) -> Callable[[Random], Json]:
    """A text with `%P` for a password, `%U` for one percent-encoded; then a template."""

    def make(rng: Random) -> Json:
        secret = password(rng)
        text = template.replace("%P", "\0").replace("%U", "\1")
        text = fill(rng, text).replace("\0", secret)
        text = text.replace("\1", urllib.parse.quote(secret, safe=""))
        forms: tuple[Json, ...] = (text, {"stdout": text}, {"args": ["-c", text]})
        return forms[rng.randrange(len(forms))]

    return make


def _basic(rng: Random) -> str:
    return b64(f"jo:{password(rng)}".encode())


def _docker_config(rng: Random) -> Json:
    return {"file": json.dumps({"auths": {"registry.example.com": {"auth": _basic(rng)}}})}


def _docker_config_value(rng: Random) -> Json:
    return {"auths": {"registry.example.com": {"auth": _basic(rng)}}}


def _kube_secret(rng: Random) -> Json:
    value = b64(password(rng).encode())
    return {
        "manifest": "apiVersion: v1\nkind: Secret\nmetadata:\n  name: db\ntype: Opaque\ndata:\n"
        f"  username: YWRtaW4=\n  password: {value}\n"
    }


def _kube_secret_json(rng: Random) -> Json:
    value = b64(password(rng).encode())
    return {"kind": "Secret", "apiVersion": "v1", "data": {"password": value}}


def _kubeconfig_token(rng: Random) -> Json:
    return {"kubeconfig": f"users:\n- name: ci\n  user:\n    token: {jwt(rng, 'RS256')}\n"}


def _kubeconfig_key(rng: Random) -> Json:
    key = b64(b"-----BEGIN RSA PRIVATE KEY-----\n" + b64(rng.randbytes(600)).encode())
    return {"kubeconfig": f"users:\n- name: ci\n  user:\n    client-key-data: {key}\n"}


def _service_account(rng: Random) -> Json:
    key = f"-----BEGIN PRIVATE KEY-----\n{b64(rng.randbytes(900))}\n-----END PRIVATE KEY-----\n"
    return {
        "type": "service_account",
        "project_id": "demo-1",
        "private_key_id": rng.randbytes(20).hex(),
        "private_key": key,
        "client_email": "ci@demo-1.iam.gserviceaccount.com",
    }


def _service_account_text(rng: Random) -> Json:
    return {"stdin": json.dumps(_service_account(rng), indent=2)}


def _basic_header(rng: Random) -> Json:
    return {"headers": {"Authorization": f"Basic {_basic(rng)}"}}


def _basic_header_text(rng: Random) -> Json:
    return ["curl", "-H", f"Authorization: Basic {_basic(rng)}", "https://api.example.com"]


def _bearer_header(rng: Random) -> Json:
    return {"headers": {"authorization": f"Bearer {fill(rng, '{40:u}')}"}}


def _bearer_text(rng: Random) -> Json:
    return {"log": f"> GET /v1/me\n> authorization: Bearer {fill(rng, '{32:h}')}\n> host: x"}


def _token_header(rng: Random) -> Json:
    return {"cmd": f'curl -H "Authorization: Token {fill(rng, "{40:h}")}" https://x.example'}


def _digest_header(rng: Random) -> Json:
    return {"headers": {"Proxy-Authorization": f"Basic {_basic(rng)}"}}


def _cookie(rng: Random) -> Json:
    name = rng.choice(("sessionid", "JSESSIONID", "PHPSESSID", "connect.sid", "_gitlab_session"))
    return {"headers": {"Cookie": f"theme=dark; {name}={fill(rng, '{32:l}')}"}}


def _set_cookie(rng: Random) -> Json:
    value = f"auth_token={fill(rng, '{43:u}')}; Path=/; HttpOnly; Secure; SameSite=Lax"
    return {"stdout": f"HTTP/1.1 200 OK\r\nSet-Cookie: {value}\r\n\r\n"}


def _base64_env(rng: Random) -> Json:
    return {"payload": b64(f"DB_HOST=db1\nDB_PASSWORD={password(rng)}\n".encode())}


def _base64_json(rng: Random) -> Json:
    return {"blob": b64(json.dumps({"user": "jo", "password": password(rng)}).encode())}


def _base64_token(rng: Random) -> Json:
    return {"blob": b64(fill(rng, "token is ghp_{36:a}").encode())}


def _base64_pem(rng: Random) -> Json:
    text = (
        f"-----BEGIN EC PRIVATE KEY-----\n{b64(rng.randbytes(121))}\n-----END EC PRIVATE KEY-----\n"
    )
    return ["--key", base64.b64encode(text.encode()).decode()]


def _hex_pem(rng: Random) -> Json:
    text = f"-----BEGIN EC PRIVATE KEY-----\n{b64(rng.randbytes(121))}\n"
    return {"hex": text.encode().hex()}


def _url_encoded_form(rng: Random) -> Json:
    form = {"grant_type": "password", "username": "jo", "password": password(rng)}
    return {"body": urllib.parse.urlencode(form)}


def _url_encoded_json(rng: Random) -> Json:
    text = json.dumps({"user": "jo", "password": password(rng)})
    return {"query": "data=" + urllib.parse.quote(text, safe="")}


def _query_token(rng: Random) -> Json:
    name = rng.choice(("access_token", "api_key", "apikey", "token", "auth", "key", "sig"))
    return f"https://api.example.com/v1/items?page=2&{name}={fill(rng, '{40:a}')}"


def _aws_presigned(rng: Random) -> Json:
    signature = fill(rng, "{64:h}")
    return (
        "https://b.s3.amazonaws.com/k?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential="
        f"AKIA{fill(rng, '{16:2}')}%2F20240301%2Feu-west-1%2Fs3%2Faws4_request"
        f"&X-Amz-Expires=3600&X-Amz-Signature={signature}"
    )


def _azure_sas(rng: Random) -> Json:
    signature = urllib.parse.quote(b64(rng.randbytes(32)), safe="")
    return {
        "url": "https://acct.blob.core.windows.net/box/file?sp=r&st=2024-03-01T10:00:00Z"
        f"&se=2024-04-01T10:00:00Z&spr=https&sv=2022-11-02&sr=b&sig={signature}"
    }


def _azure_storage(rng: Random) -> Json:
    return {
        "conn": "DefaultEndpointsProtocol=https;AccountName=acct;"
        f"AccountKey={b64(rng.randbytes(64))};EndpointSuffix=core.windows.net"
    }


def _azure_bus(rng: Random) -> Json:
    return (
        "Endpoint=sb://ns.servicebus.windows.net/;SharedAccessKeyName=Root;"
        f"SharedAccessKey={b64(rng.randbytes(32))}"
    )


def _gcs_hmac(rng: Random) -> Json:
    return {
        "gs_access_key_id": fill(rng, "GOOG1E{55:U}"),
        "gs_secret_access_key": fill(rng, "{40:b}"),
    }


def _htpasswd(rng: Random) -> Json:
    kind = rng.choice(("$apr1${8:a}${22:a}", "$2y$05${53:a}", "{{SHA}}{27:b}="))
    return {"file": "jo:" + fill(rng, kind.replace("{{SHA}}", "\0")).replace("\0", "{SHA}") + "\n"}


def _shadow(rng: Random) -> Json:
    kind = rng.choice(("$6${16:a}${86:a}", "$y$j9T${22:a}${43:a}", "$5${16:a}${43:a}"))
    return {"stdout": f"root:*:19700:0:99999:7:::\njo:{fill(rng, kind)}:19700:0:99999:7:::\n"}


def _nested_json(rng: Random) -> Json:
    value: Json = {"auth": {"user": "jo", "password": password(rng)}}
    for _ in range(rng.randint(1, 3)):
        value = {"payload": json.dumps(value)}
    return value


def _escaped_unicode(rng: Random) -> Json:
    text = json.dumps({"password": password(rng)})
    return {"raw": text.replace('"', "\\u0022")}


def _yaml_multi_line(rng: Random) -> Json:
    return {"yaml": f"db:\n  password: >-\n    {password(rng)}\n  host: db1\n"}


def _split_header(rng: Random) -> Json:
    return [["Host", "api.example.com"], ["Authorization", f"Bearer {fill(rng, '{40:u}')}"]]


def _name_value_pairs(rng: Random) -> Json:
    return {
        "env": [{"name": "LANG", "value": "C"}, {"name": "DB_PASSWORD", "value": password(rng)}]
    }


def _xml(rng: Random) -> Json:
    return {"xml": f"<server><username>jo</username><password>{password(rng)}</password></server>"}


def _oauth_response(rng: Random) -> Json:
    return {
        "access_token": url64(rng.randbytes(32)),
        "token_type": "Bearer",
        "expires_in": 3600,
        "refresh_token": url64(rng.randbytes(24)),
    }


def _saml(rng: Random) -> Json:
    xml = b"<samlp:Response xmlns:samlp='urn:oasis:names:tc:SAML:2.0:protocol'>" + rng.randbytes(
        200
    )
    return {"SAMLResponse": b64(xml)}


_SHAPED: tuple[tuple[str, str, Callable[[Random], Json]], ...] = (
    ("docker_config_text", "docker login docs, config.json", _docker_config),
    ("docker_config", "docker login docs, config.json", _docker_config_value),
    ("kube_secret_yaml", "Kubernetes docs, Secrets", _kube_secret),
    ("kube_secret_json", "Kubernetes docs, Secrets", _kube_secret_json),
    ("kubeconfig_token", "Kubernetes docs, kubeconfig", _kubeconfig_token),
    ("kubeconfig_key", "Kubernetes docs, kubeconfig", _kubeconfig_key),
    ("gcp_service_account", "Google Cloud docs, service account keys", _service_account),
    ("gcp_service_account_text", "Google Cloud docs", _service_account_text),
    ("http_basic", "RFC 7617 §2", _basic_header),
    ("http_basic_argument", "RFC 7617 §2", _basic_header_text),
    ("http_bearer", "RFC 6750 §2.1", _bearer_header),
    ("http_bearer_log", "RFC 6750 §2.1", _bearer_text),
    ("http_token_scheme", "Django REST framework docs", _token_header),
    ("http_proxy_basic", "RFC 7235 §4.4", _digest_header),
    ("http_cookie", "RFC 6265 §4.2", _cookie),
    ("http_set_cookie", "RFC 6265 §4.1", _set_cookie),
    ("http_split_header", "RFC 6750 §2.1, headers as pairs", _split_header),
    ("base64_env", "RFC 4648 §4 of an environment file", _base64_env),
    ("base64_json", "RFC 4648 §4 of JSON", _base64_json),
    ("base64_token", "RFC 4648 §4 of a sentence", _base64_token),
    ("base64_pem", "RFC 4648 §4 of PEM", _base64_pem),
    ("hex_pem", "RFC 4648 §8 of PEM", _hex_pem),
    ("form_password", "RFC 6749 §4.3.2", _url_encoded_form),
    ("query_json", "RFC 3986 §2.1 of JSON", _url_encoded_json),
    ("query_token", "RFC 6750 §2.3", _query_token),
    ("aws_presigned", "AWS SigV4 docs, query string", _aws_presigned),
    ("azure_sas", "Azure Storage docs, service SAS", _azure_sas),
    ("azure_storage", "Azure Storage docs, connection strings", _azure_storage),
    ("azure_service_bus", "Azure Service Bus docs", _azure_bus),
    ("gcs_hmac", "Google Cloud Storage docs, HMAC keys", _gcs_hmac),
    ("htpasswd", "htpasswd(1)", _htpasswd),
    ("shadow", "shadow(5), crypt(5)", _shadow),
    ("nested_json", "RFC 8259 §7, JSON in a string", _nested_json),
    ("unicode_escapes", "RFC 8259 §7, \\u escapes", _escaped_unicode),
    ("yaml_folded", "YAML 1.2 §8.1.3", _yaml_multi_line),
    ("name_value_pairs", "Kubernetes docs, container env", _name_value_pairs),
    ("xml_element", "XML 1.0, element content", _xml),
    ("oauth_response", "RFC 6749 §5.1", _oauth_response),
    ("saml_response", "SAML 2.0 bindings §3.5", _saml),
)

CARRIERS: tuple[Kind, ...] = (
    *(Kind(name, source, _text(text)) for name, source, text in (*DSNS, *FILES, *COMMANDS)),
    *(Kind(*row) for row in _SHAPED),
)
