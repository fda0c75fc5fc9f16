"""Limits repeated requests to a small share of all: a token bucket that requests fill and repetitions empty."""

from __future__ import annotations

from typing import Optional

SHARE = 0.1  # tokens for each request
PER_SECOND = 0.2  # tokens for each second, so that a client with few requests can repeat them
BURST = 10.0  # most tokens in the bucket, which starts full


class RetryBudget:
    def __init__(self) -> None:
        self._tokens = BURST
        self._last: Optional[float] = None

    def _refill(self, now: float, tokens: float) -> None:
        if self._last is None:
            self._last = now
        elif now > self._last:
            tokens += PER_SECOND * (now - self._last)
            self._last = now
        self._tokens = min(BURST, self._tokens + tokens)

    def add_request(self, now: float) -> None:
        """To be called for each request that is sent for the first time."""
        self._refill(now, SHARE)

    def take(self, now: float) -> bool:
        """True if a request may be repeated now; this takes a token."""
        self._refill(now, 0)
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
