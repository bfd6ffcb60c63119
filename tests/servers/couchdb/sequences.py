"""The tokens of a feed: opaque, of another text at each request, and good for one database only.

A token is `N-` and base64 letters: a head with a salt, and for each shard a block with its uuid and a
sequence, masked by the salt. A block is 12 bytes, thus 16 letters, so a row encodes one block anew and joins
the others. The number before the hyphen is ignored when a token is read.
"""

from __future__ import annotations

import os
import re
from binascii import a2b_base64, b2a_base64
from collections.abc import Sequence
from hashlib import blake2b

from tests.servers.couchdb.errors import bad_request
from tests.servers.couchdb.shard import Shard

HEAD_BYTES = 9
BLOCK_BYTES = 12
MAGIC = b"\x83\x6c"
TOKEN = re.compile(r"(?:\d+-)?([\w-]+)", re.ASCII)
TO_URL = bytes.maketrans(b"+/", b"-_")
FROM_URL = bytes.maketrans(b"-_", b"+/")


class Tokens:
    """Writes the tokens of one response.

    Args:
        shards: of the database.
        positions: where each of them stands.
    """

    def __init__(self, shards: Sequence[Shard], positions: Sequence[int]) -> None:
        salt = os.urandom(5)
        count = len(shards)
        self._mask = _mask(salt)
        self._shards = shards
        self._head = _letters(MAGIC + count.to_bytes(2, "big") + salt)
        self.positions = list(positions)
        self._blocks = [self._block(number) for number in range(count)]
        self._total = sum(positions)

    def move(self, shard: int, position: int) -> None:
        """Go to another position of one shard."""
        self._total += position - self.positions[shard]
        self.positions[shard] = position
        self._blocks[shard] = self._block(shard)

    def token(self) -> bytes:
        """Return the token of the present positions."""
        return b"%d-%b%b" % (self._total, self._head, b"".join(self._blocks))

    def _block(self, number: int) -> bytes:
        value = (self._shards[number].uuid << 64 | self.positions[number]) ^ self._mask
        return _letters(value.to_bytes(BLOCK_BYTES, "big"))


def read_token(text: str, shards: Sequence[Shard]) -> list[int]:
    """Return the positions that a token names; 0 for a shard that it does not know.

    Raises:
        Refusal: it is malformed.
    """
    found = TOKEN.fullmatch(text)
    if not found or len(found[1]) % 4:
        raise _malformed()
    data = a2b_base64(found[1].encode().translate(FROM_URL))
    count = int.from_bytes(data[2:4], "big")
    if data[:2] != MAGIC or len(data) != HEAD_BYTES + BLOCK_BYTES * count:
        raise _malformed()
    mask = _mask(data[4:HEAD_BYTES])
    known: dict[int, int] = {}
    for start in range(HEAD_BYTES, len(data), BLOCK_BYTES):
        value = int.from_bytes(data[start : start + BLOCK_BYTES], "big") ^ mask
        known[value >> 64] = value & (2**64 - 1)
    return [known.get(shard.uuid, 0) for shard in shards]


def _malformed() -> Exception:
    return bad_request("Malformed sequence supplied in 'since' parameter.")


def _mask(salt: bytes) -> int:
    return int.from_bytes(blake2b(salt, digest_size=BLOCK_BYTES).digest(), "big")


def _letters(data: bytes) -> bytes:
    return b2a_base64(data, newline=False).translate(TO_URL)
