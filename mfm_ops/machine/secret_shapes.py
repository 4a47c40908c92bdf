"""Credentials that are known by their shape alone: a fixed prefix and a body without spaces.

Works on *runs*: maximal stretches of letters, digits, `_`, `-` and `.`, at least 20 long.  What
stands around them (names, flags, sentences) is for `secret_text`.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Iterator
from functools import cache
from itertools import pairwise

__all__ = ["MIN_RUN_BYTES", "run_rule", "runs"]

MIN_RUN_BYTES = 20
_RUN_CHARS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-."
_MARK = bytes(ord("a") if byte in _RUN_CHARS else ord(" ") for byte in range(256))
_LONG = b"a" * MIN_RUN_BYTES
# Digests, addresses and UUIDs fill our documents and are no credentials.
_HEX_AND_DASHES = b"0123456789abcdefx-"


def runs(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Every run but plain hexadecimal, with up to 12 bytes that stand before it."""
    marks = data.translate(_MARK)
    start = marks.find(_LONG)
    while start >= 0:
        end = marks.find(b" ", start)
        if end < 0:
            end = len(marks)
        run = data[start:end]
        if run.translate(None, _HEX_AND_DASHES):
            yield run, data[max(0, start - 12) : start]
        start = marks.find(_LONG, end)


# Rule, prefix (a regular expression), body, and whether the body must look drawn at random
# because words are written with such a prefix too. A body may go on past its least length.
_B62 = r"[A-Za-z0-9]"
_URL64 = r"[A-Za-z0-9_-]"
_SHAPES: tuple[tuple[str, str, str, bool], ...] = (
    ("aws_access_key", r"(?:AKIA|ASIA|ABIA|ACCA)", r"[A-Z0-9]{16}\b", False),
    ("aws_session_token", r"(?:IQoJb3JpZ2lu|[FA]woGZXIvYXdz|FQoGZXIvYXdz)", _B62 + "{6,}", False),
    ("aws_bedrock_key", r"ABSK", _B62 + "{60,}", False),
    ("alibaba_access_key", r"LTAI", _B62 + "{16,}", False),
    ("tencent_access_key", r"AKID", _B62 + "{28,}", False),
    ("github_token", r"gh[pousr]_", r"[A-Za-z0-9_.-]{30,}", False),
    ("github_token", r"github_pat_", r"\w{22,}", False),
    (
        "gitlab_token",
        r"gl(?:pat|dt|rt|rtr|ptt|cbt|ft|imt|soat|agent|oas)-",
        _URL64 + "{16,}",
        False,
    ),
    ("gitlab_token", r"GR1348941", _URL64 + "{16,}", False),
    ("slack_token", r"(?:xox[a-z](?:\.xox[a-z])?|xapp)-", r"[A-Za-z0-9-]{14,}", False),
    ("stripe_key", r"(?:sk|rk)_(?:live|test|prod)_", _B62 + "{16,}", False),
    ("webhook_secret", r"whsec_", _B62 + "{20,}", False),
    ("google_api_key", r"AIza", _URL64 + "{33,}", False),
    ("google_oauth", r"(?:ya29\.|GOCSPX-)", _URL64 + "{20,}", False),
    ("openai_key", r"sk-(?=[\w-]*[A-Za-z0-9]{16})", _URL64 + "{20,}", True),
    ("npm_token", r"npm_", _B62 + "{30,}", False),
    ("pypi_token", r"pypi-", _URL64 + "{40,}", True),
    ("sendgrid_key", r"SG\.", _URL64 + r"{16,}\." + _URL64 + "{16,}", True),
    ("twilio_key", r"(?:SK|AC)", r"[0-9a-f]{32}\b", False),
    ("digitalocean_token", r"do[opr]_v1_", r"[0-9a-f]{40,}", False),
    ("huggingface_token", r"(?:hf_|api_org_)", r"[A-Za-z0-9]{30,}", False),
    ("vault_token", r"hv[sbr]\.", _URL64 + "{20,}", False),
    ("age_secret_key", r"AGE-SECRET-KEY-", r"(?:PQ-)?1[0-9A-Z]{40,}", False),
    ("age_secret_key", r"age-secret-key-", r"1[0-9a-z]{40,}", False),
    ("bip32_private_key", r"[xyztuv]prv", r"[1-9A-HJ-NP-Za-km-z]{100,}", False),
    ("nostr_secret_key", r"nsec1", r"[0-9a-z]{50,}", False),
    ("shopify_token", r"shp(?:at|ca|pa|ss)_", r"[0-9a-fA-F]{32}", False),
    ("databricks_token", r"dapi", r"[0-9a-f]{32}", False),
    ("mailgun_key", r"key-", r"[0-9a-f]{32}\b", False),
    ("docker_token", r"dckr_[po]at_", _URL64 + "{20,}", False),
    ("grafana_token", r"gl(?:c|sa)_", r"\w{30,}", False),
    ("doppler_token", r"dp\.(?:pt|st|ct|sa|scim|audit)\.", _URL64 + r"[\w.-]{30,}", False),
    ("dynatrace_token", r"dt0[a-z][0-9]{2}\.", r"[A-Z0-9]{20,}\.[A-Z0-9]{40,}", False),
    ("linear_key", r"lin_(?:api|oauth)_", _B62 + "{30,}", False),
    ("notion_token", r"(?:ntn|secret)_", _B62 + "{40,}", False),
    ("figma_token", r"fig[dou][hr]?_", _URL64 + "{30,}", False),
    ("postman_key", r"PMAK-", r"[0-9a-f]{24}-[0-9a-f]{34}", False),
    ("newrelic_key", r"NR(?:AK|II|JS|AL|RA)-", r"[A-Za-z0-9-]{19,}", True),
    ("pulumi_token", r"pul-", r"[0-9a-f]{40}", False),
    ("brevo_key", r"xkeysib-", r"[0-9a-f]{40,}", False),
    ("square_token", r"sq0[a-z]{3}-", _URL64 + "{22,}", False),
    ("square_token", r"EAAA", _URL64 + "{56,}", False),
    ("facebook_token", r"EAA[A-Z]", r"[A-Za-z0-9]{60,}", False),
    ("twitter_bearer", r"A{20}", r"[A-Za-z0-9%]{50,}", True),
    ("firebase_key", r"APA91b", _URL64 + "{80,}", False),
    ("atlassian_token", r"AT(?:ATT3|CTT3|STT3|BB|OATT3)x?", _URL64 + "{24,}", True),
    ("circleci_token", r"CCI(?:PAT|PRJ)_", _URL64 + "{20,}", False),
    ("contentful_token", r"CFPAT-", _URL64 + "{40,}", False),
    ("dropbox_token", r"sl\.", _URL64 + r"{60,}", False),
    ("easypost_key", r"EZ[AT]K", _B62 + "{50,}", False),
    ("flutterwave_key", r"FLW(?:SEC|PUB)K", r"[A-Za-z0-9_-]{20,}", True),
    ("heroku_key", r"HRKU-", _URL64 + "{30,}", False),
    ("netlify_token", r"nf[pcou]_", _B62 + "{30,}", False),
    ("perplexity_key", r"pplx-", _B62 + "{30,}", False),
    ("groq_key", r"gsk_", _B62 + "{40,}", False),
    ("xai_key", r"xai-", _B62 + "{40,}", False),
    ("replicate_token", r"r8_", _B62 + "{30,}", False),
    ("tailscale_key", r"tskey-(?:[a-z]+-)?", _B62 + r"[\w-]{16,}", True),
    ("supabase_key", r"sb(?:p|_secret)_", r"\w{20,}", True),
    ("planetscale_token", r"pscale_(?:tkn|pw|oauth)_", _URL64 + "{30,}", False),
    ("prefect_key", r"pn[ub]_", _B62 + "{30,}", False),
    ("rubygems_key", r"rubygems_", r"[0-9a-f]{40,}", False),
    ("crates_token", r"cio", r"[A-Za-z0-9]{32}\b", True),
    ("sentry_token", r"sntr(?:yu|ys)_", r"\w{40,}", False),
    ("sourcegraph_token", r"(?:sgp|slk)_", r"\w{40,}", False),
    ("airtable_token", r"pat", r"[A-Za-z0-9]{14}\.[0-9a-f]{64}", False),
    ("onepassword_token", r"ops_eyJ", _URL64 + "{40,}", False),
    ("nuget_key", r"oy2", r"[a-z0-9]{43}\b", False),
    ("langsmith_key", r"lsv2_(?:pt|sk)_", r"[0-9a-f]{32}", False),
    ("pinecone_key", r"pcsk_", r"\w{30,}", True),
    ("nvidia_key", r"nvapi-", _URL64 + "{40,}", False),
    ("tavily_key", r"tvly-", r"[A-Za-z0-9-]{24,}", True),
    ("fireworks_key", r"fw_", _B62 + "{22,}", True),
    ("resend_key", r"re_", _B62 + r"{8}_\w{20,}", True),
    ("sonar_token", r"sq[apu]_", r"[0-9a-f]{40}", False),
    ("mapbox_token", r"sk\.eyJ", _URL64 + r"{20,}\." + _URL64 + "{16,}", False),
    ("private_key_body", r"b3BlbnNzaC1rZXktdjEA", _B62 + "{4,}", False),
    ("private_key_body", r"MII[A-Za-z0-9]{3}IBA(?:DANBgkqhkiG9w0|AK)", _B62 + "{4,}", False),
    ("private_key_body", r"(?:MIGHAgEAMBMGByqGSM49|MC4CAQAwBQYDK2V)", _B62 + "*", False),
    ("bip38_key", r"6P", r"[1-9A-HJ-NP-Za-km-z]{56}\b", True),
)
_ANY_PREFIX = re.compile("|".join(prefix for _, prefix, _, _ in _SHAPES).encode())
_DISCORD = re.compile(rb"[MNO][\w-]{22,27}\.[\w-]{6}\.[\w-]{27,}")
_MAILCHIMP = re.compile(rb"[0-9a-f]{32}-us[0-9]{1,2}")
_TELEGRAM_ID = re.compile(rb"(?:^|[^0-9])[0-9]{6,11}:$")
_HOOK = re.compile(rb"/[BT][A-Z0-9]{8,10}/[A-Za-z0-9]{24}\Z|[0-9]{11}/[\w-]{60,80}\Z")
_SAMPLE = re.compile(rb"EXAMPLE|(?i:xxxx|your[-_]|redacted|placeholder)")
_LOWER = frozenset(b"abcdefghijklmnopqrstuvwxyz")
_BASE58 = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_PEM64 = b"LS0tLS1CRUdJTi"


@cache
def _compiled() -> tuple[tuple[str, re.Pattern[bytes], bool], ...]:
    # Compiled when a prefix shows up for the first time: most programs never meet one.
    return tuple(
        (rule, re.compile(f"(?:{prefix})({body})".encode()), random)
        for rule, prefix, body, random in _SHAPES
    )


def run_rule(run: bytes, before: bytes) -> str | None:
    """The rule that the run breaks, if any; `before` is what stands in front of it."""
    run = run.lstrip(b"-_.")
    if run.islower() and not _ANY_PREFIX.match(run) and b"-us" not in run:
        return None  # identifiers, paths: the shapes below have capitals
    if run.startswith(b"eyJ") and _is_jose(run):
        return "jwt"
    if run.startswith(_PEM64):
        return "pem_private_key" if _is_encoded_pem(run) else None
    if len(run) in {51, 52} and run[:1] in b"5KLc9" and _is_wif(run):
        return "wif_private_key"
    if len(run) == 35 and before.endswith(b":") and _TELEGRAM_ID.search(before):
        return "telegram_token" if _random(run) else None
    if before.endswith(b"/") and _HOOK.search(before + run) and _random(run):
        return "webhook_url"
    if before.endswith(b"1//") and run.startswith(b"0") and len(run) >= 40:
        return "google_oauth"
    if before.endswith(b"Q~") and _random(run):
        return "azure_client_secret"
    if b"." in run and _DISCORD.fullmatch(run) and _random(run):
        return "discord_token"
    if b".atlasv1." in run and len(run) >= 60:
        return "terraform_token"
    if b"-us" in run and _MAILCHIMP.fullmatch(run):
        return "mailchimp_key"
    if not _ANY_PREFIX.match(run):
        return None
    for rule, shape, must_be_random in _compiled():
        found = shape.match(run)
        if found and _varied(found[1]) and not (must_be_random and not _random(found[1])):
            return rule
    return None


def _varied(body: bytes) -> bool:
    """No filler (`xxxxxxxx`) and not one of the samples that manuals print."""
    return (len(body) < 12 or len(set(body)) >= 6) and not _SAMPLE.search(body)


def _random(body: bytes) -> bool:
    """Not written by a person: digits and letters mixed inside one word, or odd capitals."""
    for word in re.split(rb"[-_.]", body):
        digits = sum(48 <= byte <= 57 for byte in word)
        turns = sum(a in _LOWER and b not in _LOWER for a, b in pairwise(word))
        if len(word) >= 8 and (2 <= digits < len(word) or turns * 5 >= len(word)):
            return True
    return False


def _is_jose(run: bytes) -> bool:
    parts = run.rstrip(b".").split(b".")
    if len(parts) not in {3, 5} or min(map(len, parts[2:])) < 8:
        return False
    header = _decode(parts[0][:4000])
    return header.startswith(b"{") and (b'"alg"' in header or b'"typ"' in header)


def _is_encoded_pem(run: bytes) -> bool:
    return b"PRIVATE KEY" in _decode(run[:64])


def _decode(text: bytes) -> bytes:
    try:
        return base64.urlsafe_b64decode(text + b"=" * (-len(text) % 4))
    except binascii.Error:
        return b""


def _is_wif(run: bytes) -> bool:
    number = 0
    for byte in run:
        digit = _BASE58.find(byte)
        if digit < 0:
            return False
        number = number * 58 + digit
    raw = number.to_bytes(39, "big").lstrip(b"\0")
    check = hashlib.sha256(hashlib.sha256(raw[:-4]).digest()).digest()[:4]
    return raw[:1] in {b"\x80", b"\xef"} and check == raw[-4:]
