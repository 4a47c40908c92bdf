"""Private keys, wallets and recovery phrases in the forms that tools write them.

A 64-digit hex string is a key only under a name that says so; alone it is a digest like any other.
"""

from random import Random

from mfm_ops.machine.json_rules import Json
from tests.corpora.draws import armour, b64, base58, bech32, fill, jwt, phrase, url64
from tests.corpora.kinds import Kind, planted

__all__ = ["KEY_MATERIAL"]

_RFC7468 = "RFC 7468 §10-11, textual encodings of private keys"
_BIP39 = "BIP-39, mnemonic code for generating deterministic keys"
_BIP32 = "BIP-32, serialization format; SLIP-132 for other prefixes"


def _pem(name: str, source: str, label: str, size: int, *headers: str) -> Kind:
    def make(rng: Random) -> Json:
        text = armour(label, rng.randbytes(size), headers=headers)
        way = rng.randrange(5)
        if way == 0:
            return text
        if way == 1:
            return {"files": [{"name": "server.key", "content": text}]}
        if way == 2:
            return {"stdout": f"writing key\n{text}done"}
        if way == 3:
            return {"config": text.replace("\n", "\\n")}
        return {"yaml": "tls:\n  key: |\n    " + text.replace("\n", "\n    ")}

    return Kind(name, source, make)


def _phrase(name: str, words: int, joint: str) -> Kind:
    def make(rng: Random) -> Json:
        text = joint.join(phrase(rng, words))
        way = rng.randrange(4)
        if way == 0:
            return text
        if way == 1:
            return {"note": f"backup: {text}"}
        if way == 2:
            return ["import", text]
        return {"stdout": f"Your wallet was created.\n{text}\nKeep it safe."}

    return Kind(name, _BIP39, make)


def _numbered(rng: Random) -> Json:
    lines = [f"{at}. {word}" for at, word in enumerate(phrase(rng, 12), start=1)]
    return {"stdout": "\n".join(lines)}


def _listed(rng: Random) -> Json:
    return {"words": list[Json](phrase(rng, rng.choice((12, 15, 18, 21, 24))))}


def _upper(rng: Random) -> Json:
    return " ".join(phrase(rng, 12)).upper()


def _ethereum(rng: Random) -> Json:
    key = rng.choice(("0x", "")) + rng.randbytes(32).hex()
    name = rng.choice(("private_key", "privateKey", "PRIVATE_KEY", "privkey", "secretKey"))
    way = rng.randrange(4)
    if way == 0:
        return {"account": {name: key, "address": "0x" + rng.randbytes(20).hex()}}
    if way == 1:
        return {"stdout": f"Private key: {key}\nPublic key: 0x{rng.randbytes(64).hex()}"}
    if way == 2:
        return ["cast", "send", "--private-key", key]
    return f"export {name.upper()}={key}"


def _ethereum_env(rng: Random) -> Json:
    name = rng.choice(("DEPLOYER_PRIVATE_KEY", "ETH_PRIVATE_KEY", "SIGNER_KEY", "WALLET_KEY"))
    return {"env": {name: "0x" + rng.randbytes(32).hex()}}


def _extended(name: str, version: str) -> Kind:
    def make(rng: Random) -> Json:
        body = bytes.fromhex(version) + rng.randbytes(41) + b"\0" + rng.randbytes(32)
        return planted(rng, base58(body, checked=True))

    return Kind(name, _BIP32, make)


def _wif(rng: Random) -> Json:
    tail = b"\1" if rng.randrange(2) else b""
    return planted(rng, base58(b"\x80" + rng.randbytes(32) + tail, checked=True))


def _bip38(rng: Random) -> Json:
    return planted(rng, base58(b"\x01\x42\xe0" + rng.randbytes(36), checked=True))


def _solana_named(rng: Random) -> Json:
    return {"SOLANA_PRIVATE_KEY": base58(rng.randbytes(64))}


def _solana_file(rng: Random) -> Json:
    return {"id.json": list[Json](rng.randbytes(64))}


def _stellar(rng: Random) -> Json:
    return planted(rng, fill(rng, "S{55:2}"))


def _wireguard(rng: Random) -> Json:
    private, public = b64(rng.randbytes(32)), b64(rng.randbytes(32))
    return {
        "stdout": f"[Interface]\nPrivateKey = {private}\nAddress = 10.0.0.2/32\n\n[Peer]\n"
        f"PublicKey = {public}\nAllowedIPs = 0.0.0.0/0\n"
    }


def _wireguard_shared(rng: Random) -> Json:
    return {"conf": f"[Peer]\nPresharedKey = {b64(rng.randbytes(32))}\nEndpoint = vpn:51820\n"}


def _age(rng: Random) -> Json:
    key = "AGE-SECRET-KEY-1" + bech32(rng, 58).upper()
    return {"stdout": f"# created: 2024-03-01T10:00:00Z\n# public key: age1x\n{key}\n"}


def _age_plugin(rng: Random) -> Json:
    return planted(rng, "AGE-PLUGIN-YUBIKEY-1" + bech32(rng, 24).upper())


def _nostr(rng: Random) -> Json:
    return planted(rng, "nsec1" + bech32(rng, 58))


def _putty(rng: Random) -> Json:
    lines = "\n".join(b64(rng.randbytes(48)) for _ in range(3))
    return {
        "file": "PuTTY-User-Key-File-3: ssh-ed25519\nEncryption: none\nComment: me\n"
        f"Public-Lines: 2\n{lines}\nPrivate-Lines: 1\n{b64(rng.randbytes(36))}\n"
        f"Private-MAC: {rng.randbytes(32).hex()}\n"
    }


def _jwk(rng: Random) -> Json:
    return {
        "kty": "EC",
        "crv": "P-256",
        "x": url64(rng.randbytes(32)),
        "y": url64(rng.randbytes(32)),
        "d": url64(rng.randbytes(32)),
    }


def _jwk_rsa(rng: Random) -> Json:
    parts = {name: url64(rng.randbytes(128)) for name in ("p", "q", "dp", "dq", "qi")}
    return {
        "keys": [
            {
                "kty": "RSA",
                "e": "AQAB",
                "n": url64(rng.randbytes(256)),
                "d": url64(rng.randbytes(256)),
                **parts,
            }
        ]
    }


def _minisign(rng: Random) -> Json:
    body = b64(b"EdScB2" + rng.randbytes(152))
    return {"file": f"untrusted comment: minisign encrypted secret key\n{body}\n"}


def _signify(rng: Random) -> Json:
    body = b64(b"EdBK" + rng.randbytes(100))
    return {"file": f"untrusted comment: signify secret key\n{body}\n"}


def _nix_signing(rng: Random) -> Json:
    key = f"cache.example.org-1:{b64(rng.randbytes(64))}"
    return {"stdout": f"secret-key = {key}"} if rng.randrange(2) else {"signing_key": key}


def _jwt_any(rng: Random) -> Json:
    return planted(rng, jwt(rng, rng.choice(("HS256", "RS256", "ES256"))))


def _pkcs12(rng: Random) -> Json:
    return {"keystore_password": fill(rng, "{14:a}"), "p12": b64(rng.randbytes(90))}


def _otp(rng: Random) -> Json:
    return planted(rng, fill(rng, "otpauth://totp/ACME:jo@example.com?secret={32:2}&issuer=ACME"))


def _seed_hex(rng: Random) -> Json:
    name = rng.choice(("seed", "master_seed", "wallet_seed", "entropy_seed", "hd_seed"))
    return {"wallet": {name: rng.randbytes(rng.choice((16, 32, 64))).hex()}}


def _rclone(rng: Random) -> Json:
    return {"conf": f"[remote]\ntype = sftp\nuser = jo\npass = {url64(rng.randbytes(30))}\n"}


KEY_MATERIAL: tuple[Kind, ...] = (
    _pem("pem_pkcs8", _RFC7468, "PRIVATE KEY", 138),
    _pem("pem_pkcs8_encrypted", _RFC7468, "ENCRYPTED PRIVATE KEY", 200),
    _pem("pem_rsa", "OpenSSL, openssl-rsa(1)", "RSA PRIVATE KEY", 608),
    _pem("pem_ec", "RFC 5915 §4", "EC PRIVATE KEY", 121),
    _pem("pem_dsa", "OpenSSL, openssl-dsa(1)", "DSA PRIVATE KEY", 448),
    _pem(
        "pem_legacy_encrypted",
        "OpenSSL, PEM_read(3): encryption headers",
        "RSA PRIVATE KEY",
        608,
        "Proc-Type: 4,ENCRYPTED",
        "DEK-Info: AES-256-CBC,00112233445566778899AABBCCDDEEFF",
    ),
    _pem("pem_openssh", "OpenSSH, PROTOCOL.key", "OPENSSH PRIVATE KEY", 280),
    _pem("pgp_private", "RFC 4880 §6.2", "PGP PRIVATE KEY BLOCK", 500, "Version: GnuPG v2"),
    _pem("ssh2_encrypted", "ssh.com, SSH2 key format", "SSH2 ENCRYPTED PRIVATE KEY", 300),
    _pem("pem_tss2", "tpm2-tss-engine, TSS2 key format", "TSS2 PRIVATE KEY", 250),
    _phrase("bip39_12", 12, " "),
    _phrase("bip39_15", 15, " "),
    _phrase("bip39_18", 18, " "),
    _phrase("bip39_21", 21, " "),
    _phrase("bip39_24", 24, " "),
    _phrase("bip39_commas", 12, ", "),
    _phrase("bip39_dashes", 12, "-"),
    _phrase("bip39_lines", 24, "\n"),
    _phrase("bip39_underscores", 12, "_"),
    _phrase("bip39_two_spaces", 12, "  "),
    _phrase("bip39_ideographic_space", 12, "\u3000"),
    Kind("bip39_numbered", _BIP39, _numbered),
    Kind("bip39_listed", _BIP39, _listed),
    Kind("bip39_upper_case", _BIP39, _upper),
    Kind("ethereum_named", "Ethereum yellow paper, appendix F: 32-byte keys", _ethereum),
    Kind("ethereum_env", "Foundry and Hardhat docs, deployer keys in env", _ethereum_env),
    _extended("bip32_xprv", "0488ade4"),
    _extended("bip32_yprv", "049d7878"),
    _extended("bip32_zprv", "04b2430c"),
    _extended("bip32_tprv", "04358394"),
    Kind("bitcoin_wif", "Bitcoin wiki, Wallet import format", _wif),
    Kind("bip38_encrypted", "BIP-38, passphrase-protected private key", _bip38),
    Kind("solana_base58", "Solana docs, keypairs", _solana_named),
    Kind("solana_id_json", "Solana docs, file system wallet", _solana_file),
    Kind("stellar_seed", "Stellar docs, SEP-23 strkey", _stellar),
    Kind("nostr_nsec", "Nostr NIP-19, bech32 entities", _nostr),
    Kind("wireguard_private", "wg(8), configuration file format", _wireguard),
    Kind("wireguard_preshared", "wg(8), configuration file format", _wireguard_shared),
    Kind("age_identity", "age specification, X25519 identities", _age),
    Kind("age_plugin_identity", "age plugin specification", _age_plugin),
    Kind("putty_ppk", "PuTTY manual, appendix C: PPK file format", _putty),
    Kind("jwk_ec", "RFC 7518 §6.2.2", _jwk),
    Kind("jwk_rsa", "RFC 7518 §6.3.2", _jwk_rsa),
    Kind("minisign_secret", "minisign docs, secret key format", _minisign),
    Kind("signify_secret", "signify(1)", _signify),
    Kind("nix_signing_key", "Nix manual, nix-store --generate-binary-cache-key", _nix_signing),
    Kind("jwt", "RFC 7519 §3", _jwt_any),
    Kind("pkcs12_password", "keytool(1), store passwords", _pkcs12),
    Kind("otpauth", "Google Authenticator wiki, key URI format", _otp),
    Kind("wallet_seed_hex", "BIP-39 §From mnemonic to seed", _seed_hex),
    Kind("rclone_obscured", "rclone docs, rclone obscure", _rclone),
)
