"""Document ids: text ⇄ (table number, internal id).

An id is base32 (alphabet without i, l, o and u, no padding) of varint(table number), the 16 bytes
of the internal id, and a Fletcher-16 checksum of both (sums modulo 256). Every pair has exactly one
spelling; anything else does not decode. Ids of one table share a prefix and are otherwise random.

Source of facts: docs/reference/ids.md; tests/conformance/vectors/ids.json.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import accumulate
from typing import NamedTuple

from reactive_store.errors import BadRequest

__all__ = ["DecodedId", "decode_id", "encode_id", "new_internal_id", "table_number_of"]

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_INTERNAL_BYTES = 16
_FOOTER_BYTES = 2
_LARGEST_TABLE = 0xFFFF_FFFF
_LARGEST_VARINT_BYTES = 5
_SHORTEST, _LONGEST = 31, 37  # texts of ids, in bytes

# Ten bits at a time: two characters for each of 1024 numbers.
_PAIRS = [a + b for a in _ALPHABET for b in _ALPHABET]
# Python's own base-32 digits are 0-9 and a-v. Everything outside our alphabet becomes "!", which
# int() refuses (it would take upper case, "_", signs and spaces).
_TO_DIGITS = bytes(
    b"0123456789abcdefghijklmnopqrstuv"[_ALPHABET.index(chr(i))] if chr(i) in _ALPHABET else 0x21
    for i in range(256)
)


class DecodedId(NamedTuple):
    """What an id says: the number of its table, and 16 bytes that are unique within it."""

    table_number: int
    internal_id: bytes


def new_internal_id(random14: bytes, day: int) -> bytes:
    """The 16 bytes of a new document: 14 random ones and the day.

    Units    `day` counts from 1970-01-01 UTC, 0 to 65535
    """
    return random14 + day.to_bytes(2, "big")


def encode_id(table_number: int, internal_id: bytes) -> str:
    """The text of an id.

    Cost     about 2 µs
    Raises   ValueError when the number is not 1 to 2**32-1 or the internal id not 16 bytes
    """
    if len(internal_id) != _INTERNAL_BYTES:
        raise ValueError(f"internal ids have {_INTERNAL_BYTES} bytes, not {len(internal_id)}")
    return _to_text(_with_footer(_varint(table_number) + internal_id))


def decode_id(text: str) -> DecodedId:
    """What an id says.

    Cost     about 3 µs
    Raises   BadRequest[InvalidId] with the reason, in the words of Convex's open server
    """
    size = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
    if not _SHORTEST <= size <= _LONGEST:
        raise _invalid(f"Invalid ID length {size}")
    try:
        number = int(text.encode("ascii").translate(_TO_DIGITS), 32)
    except ValueError as error:
        raise _invalid("ID wasn't valid base32") from error
    binary = (number >> (5 * size % 8)).to_bytes(5 * size // 8, "big")
    table_number, start = _read_varint(binary)
    end = start + _INTERNAL_BYTES
    if len(binary) < end + _FOOTER_BYTES:
        raise _invalid(f"Invalid ID length {size}")
    found = int.from_bytes(binary[end : end + _FOOTER_BYTES], "little")
    expected = _fletcher16(binary[:end])
    if found != expected:
        raise _invalid(f"Invalid ID version {found} (expected {expected})")
    # One spelling only: no bytes or characters left over, no spare bits set, the shortest varint.
    spare = 5 * size % 8
    if (
        len(binary) != end + _FOOTER_BYTES
        or spare >= 5
        or number & ((1 << spare) - 1)
        or table_number > _LARGEST_TABLE
        or binary[:start] != _varint(table_number)
    ):
        raise _invalid(f"Invalid ID length {size}")
    return DecodedId(table_number, binary[start:end])


def table_number_of(text: str) -> int:
    """The number of the table an id belongs to, or 0 when it is not an id.

    Cost     0.1 µs for one of the last ids asked for, else that of `decode_id`
    """
    # Only what is as short as an id is remembered: strangers choose what is asked for.
    return _table_number_of(text) if len(text) <= _LONGEST else 0


@lru_cache(maxsize=32_768)
def _table_number_of(text: str) -> int:
    try:
        return decode_id(text).table_number
    except BadRequest:
        return 0


def _invalid(reason: str) -> BadRequest:
    return BadRequest(f"Unable to decode ID: {reason}", code="InvalidId")


def _fletcher16(data: bytes) -> int:
    # c0 is the sum of the bytes, c1 the sum of all its intermediate values.
    sums = list(accumulate(data))
    return (sum(sums) & 0xFF) << 8 | (sums[-1] & 0xFF)


def _with_footer(data: bytes) -> bytes:
    return data + _fletcher16(data).to_bytes(_FOOTER_BYTES, "little")


@lru_cache(maxsize=4096)
def _varint(number: int) -> bytes:
    if not 1 <= number <= _LARGEST_TABLE:
        raise ValueError(f"table numbers are 1 to {_LARGEST_TABLE}, not {number}")
    groups = bytearray()
    while number > 0x7F:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    groups.append(number)
    return bytes(groups)


def _read_varint(binary: bytes) -> tuple[int, int]:
    """The number and where it ends."""
    number = 0
    for index, byte in enumerate(binary[:_LARGEST_VARINT_BYTES]):
        number |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            # The server drops bits above 32 before it looks for zero.
            if number & _LARGEST_TABLE == 0:
                break
            return number, index + 1
    raise _invalid("Invalid table number")


def _to_text(binary: bytes) -> str:
    bits = 8 * len(binary)
    chars = -(-bits // 5)
    number = int.from_bytes(binary, "big") << (5 * chars - bits)
    if chars == 32:  # the usual case, unrolled: shifting a big number is the cost here
        high, low = number >> 80, number & 0xFFFF_FFFF_FFFF_FFFF_FFFF
        return _ten_bits(high) + _ten_bits(low)
    digits = []
    for _ in range(chars):
        digits.append(_ALPHABET[number & 31])
        number >>= 5
    return "".join(reversed(digits))


def _ten_bits(number: int) -> str:
    """Sixteen characters of an 80-bit number; its halves fit machine words."""
    pairs = _PAIRS
    high, low = number >> 40, number & 0xFF_FFFF_FFFF
    return (
        pairs[high >> 30]
        + pairs[high >> 20 & 1023]
        + pairs[high >> 10 & 1023]
        + pairs[high & 1023]
        + pairs[low >> 30]
        + pairs[low >> 20 & 1023]
        + pairs[low >> 10 & 1023]
        + pairs[low & 1023]
    )
