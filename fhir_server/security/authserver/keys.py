"""The exchange's signing keys: made, sealed, rotated, published. RFC 7517 (JWK), RFC 7638 (key ids), OpenID Connect Core section 10.1.1.

A key is a record whose `_id` is its number: of two workers that make the next one, one wins and both use it. The private half is sealed
with AES-GCM under a key derived from the exchange's secret (FHIR_SECRET, or the owner-only file in the data directory), so that neither the
database nor a backup can sign. A new key is published before it signs, and stays published until the last token it signed has ended.
"""

import asyncio
import base64
import json
import os
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from joserfc.jwk import KeySet, RSAKey

from conformance.outcome import unavailable
from fhir_server.security.authserver.kinds import KEYS
from fhir_server.store.records import Document, Records

ALGORITHM = "RS256"  # SMART: "The EHR SHALL support Signing ID Tokens with RSA SHA-256"; RSA also verifies ten times as fast as P-384
BITS = 3072
FRESH_SECONDS = 30.0  # how long a worker may sign and verify with what it read
LEAD_SECONDS = 120  # a new key is published so long before it signs: longer than FRESH_SECONDS and than clients cache the key set
NONCE_BYTES = 12


@dataclass(frozen=True, slots=True)
class SigningKey:
    """One generation. private: None where this process cannot open it (sealed under another secret)."""

    number: int
    kid: str
    public: dict[str, Any]
    private: RSAKey | None
    signs_from: datetime
    ends: datetime | None


@dataclass(slots=True)
class KeyRing:
    """The keys as this worker knows them; `days`: age at which the next generation is made; `overlap`: seconds a replaced one stays published."""

    records: Records
    secret: str
    days: int
    overlap: int
    keys: tuple[SigningKey, ...] = ()
    read_at: float = -1e9
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def current(self, *, refresh: bool = False) -> tuple[SigningKey, ...]:
        """All published keys, newest first; the first start makes one."""
        if refresh or time.monotonic() - self.read_at > FRESH_SECONDS:
            async with self.lock:
                if refresh or time.monotonic() - self.read_at > FRESH_SECONDS:
                    await self._read()
        return self.keys

    async def signer(self) -> SigningKey:
        """The key that signs now: the newest whose time has come and that this process can open."""
        keys = await self.current()
        now = datetime.now(UTC)
        for key in keys:
            if key.private is not None and key.signs_from <= now:
                return key
        raise unavailable("no signing key can be opened: FHIR_SECRET differs from that of the servers that made them")

    async def public(self, *, refresh: bool = False) -> KeySet:
        """What verifies our own tokens."""
        return KeySet.import_key_set({"keys": [key.public for key in await self.current(refresh=refresh)]})

    async def _read(self) -> None:
        rows = await self.records.find(KEYS)
        keys = sorted((_opened(row, self.secret) for row in rows), key=lambda key: -key.number)
        now = datetime.now(UTC)
        usable = [key for key in keys if key.private is not None and key.ends is None]
        if not usable or now - usable[0].signs_from > timedelta(days=self.days):
            lead = LEAD_SECONDS if usable else 0
            await rotate(self.records, self.secret, self.overlap, lead=lead, known=keys[0].number if keys else 0)
            rows = await self.records.find(KEYS)
            keys = sorted((_opened(row, self.secret) for row in rows), key=lambda key: -key.number)
        self.keys, self.read_at = tuple(keys), time.monotonic()


async def rotate(records: Records, secret: str, overlap: int, *, lead: int = LEAD_SECONDS, known: int | None = None) -> str:
    """Make the next generation (its key id); the ones before stay published for `lead` + `overlap` seconds. lead 0, or none before: sign with it at once.

    known: the newest number the caller saw; if another process has made the next one meanwhile, that one is kept.
    """
    if known is None:
        known = max((row["number"] for row in await records.find(KEYS)), default=0)
    key = await asyncio.to_thread(RSAKey.generate_key, BITS)
    public = key.as_dict(private=False)
    kid = key.thumbprint()
    starts = datetime.now(UTC) + timedelta(seconds=lead if known else 0)
    document = {
        "number": known + 1,
        "kid": kid,
        "public": {"kty": public["kty"], "n": public["n"], "e": public["e"], "kid": kid, "use": "sig", "alg": ALGORITHM},
        "sealed": seal(json.dumps(key.as_dict(private=True)).encode(), secret, kid),
        "signs_from": starts,
        "ends": None,
    }
    if not await records.insert(KEYS, f"{known + 1:06d}", document):
        return str((await records.get(KEYS, f"{known + 1:06d}") or document)["kid"])
    ends = starts + timedelta(seconds=overlap)
    for row in await records.find(KEYS):
        if row["number"] <= known and (row["ends"] is None or row["ends"] > ends):
            await records.change(KEYS, row["_id"], {"ends": ends}, until=ends)
    return kid


def _opened(row: Document, secret: str) -> SigningKey:
    try:
        private: RSAKey | None = RSAKey.import_key({**json.loads(unseal(row["sealed"], secret, row["kid"])), "kid": row["kid"]})
    except InvalidTag:
        private = None
    return SigningKey(row["number"], row["kid"], row["public"], private, row["signs_from"], row["ends"])


def _sealing_key(secret: str) -> AESGCM:
    return AESGCM(HKDF(SHA256(), 32, None, b"fhir-exchange signing keys").derive(secret.encode()))


def seal(data: bytes, secret: str, bound: str) -> str:
    """Encrypt under the exchange's secret, bound to a name."""
    nonce = os.urandom(NONCE_BYTES)
    return base64.b64encode(nonce + _sealing_key(secret).encrypt(nonce, data, bound.encode())).decode()


def unseal(text: str, secret: str, bound: str) -> bytes:
    """The reverse of `seal`. Raises InvalidTag under another secret or name."""
    data = base64.b64decode(text)
    return _sealing_key(secret).decrypt(data[:NONCE_BYTES], data[NONCE_BYTES:], bound.encode())
