"""Seeds: every random stream of a study follows from the study's own."""

import hashlib


def derive_seed(*parts: int | str) -> int:
    """A seed for one purpose: 31 bits that no other sequence of parts shares, but by chance."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1
