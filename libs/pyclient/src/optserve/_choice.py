"""Which of several schedulers gets a job: rendezvous hashing, the same as in C++ (libs/client/scheduler_choice.cc)."""

from __future__ import annotations

from typing import List, Sequence, Union

from ._errors import BadRequest

SCHEDULERS_MAX = 64
DIGEST_OF_NOTHING = 0xCBF29CE484222325
_FACTOR = 0x100000001B3
_BITS = 0xFFFFFFFFFFFFFFFF


def hash_bytes(data: bytes, before: int = DIGEST_OF_NOTHING) -> int:
    """FNV-1a of 64 bits."""
    digest = before
    for byte in data:
        digest = ((digest ^ byte) * _FACTOR) & _BITS
    return digest


def text_digest(text: bytes) -> int:
    """What Attach tells of the text that a client has; never 0."""
    return hash_bytes(text) or 1


def _mix(x: int) -> int:
    """The finalizer of SplitMix64."""
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _BITS
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _BITS
    return x ^ (x >> 31)


def split_endpoints(endpoints: Union[str, Sequence[str]]) -> List[str]:
    """Addresses, given as a list or as text with commas."""
    parts = endpoints.split(",") if isinstance(endpoints, str) else list(endpoints)
    if not parts or not all(parts):
        raise BadRequest(f"endpoints {endpoints!r}: expected addresses separated by commas, found an empty one")
    for part in parts:
        if parts.count(part) > 1:
            raise BadRequest(f"endpoints {endpoints!r}: {part} occurs twice")
    if len(parts) > SCHEDULERS_MAX:
        raise BadRequest(f"endpoints: expected at most {SCHEDULERS_MAX}, found {len(parts)}")
    return parts


def endpoint_hashes(endpoints: Sequence[str]) -> List[int]:
    return [hash_bytes(endpoint.encode()) for endpoint in endpoints]


def scheduler_order(tenant: str, key: str, endpoints: Sequence[str],
                    hashes: Union[Sequence[int], None] = None) -> List[int]:
    """All schedulers in the order in which a job with this key prefers them, as indices into `endpoints`.

    `hashes` are endpoint_hashes(endpoints), for callers that ask often.
    """
    name = hash_bytes(b"\0", hash_bytes(tenant.encode(errors="replace")))
    job = _mix(hash_bytes(key.encode(errors="replace"), name))
    weights = [_mix(job ^ each) for each in (endpoint_hashes(endpoints) if hashes is None else hashes)]
    return sorted(range(len(endpoints)), key=lambda i: (-weights[i], endpoints[i].encode()))
