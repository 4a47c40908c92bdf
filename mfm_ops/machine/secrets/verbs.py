"""The words of commands behind which a credential may stand as a plain argument.

Patterns as text, so that the gates, which every program imports, compile none of them.
"""

__all__ = ["CREDENTIAL_VERBS", "SETTINGS", "VERBS"]

# Commands whose positional arguments end in a password or a token.
CREDENTIAL_VERBS = (
    r"(?:add|create|new|set|change|reset)[-_]?(?:user|passw(?:or)?d|pass|auth-?token|credentials?)"
    r"|user[-_:]?(?:add|create|set|password|passwd)|useradd|adduser|passwd|obscure|unseal|unlock"
    r"|log-?in|sign-?in|auth(?:orize|enticate)?|alias|register|wallet-?passphrase(?:change)?"
    r"|wpa_passphrase|encryptwallet|setuser|kinit|addprinc|import|join|add-apikey|license"
)
# What sets many things: a password only if it was drawn.
SETTINGS = r"config|set|put|use|user|create|add|edit|modify"
VERBS = f"{CREDENTIAL_VERBS}|{SETTINGS}"
