"""Asking many things of a store or of servers at once, but never too many."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

__all__ = ["AT_ONCE", "at_once"]

AT_ONCE = 16
"""Half of the connections that one store keeps open."""

_Thing = TypeVar("_Thing")
_Answer = TypeVar("_Answer")


def at_once(
    ask: Callable[[_Thing], _Answer], things: Iterable[_Thing], *, threads: int = AT_ONCE
) -> list[_Answer]:
    """``ask`` of each thing, in their order, on at most ``threads`` threads. What ``ask`` raises is
    raised here, after the calls under way have ended; those not begun are dropped."""
    listed = list(things)
    if len(listed) < 2:
        return [ask(thing) for thing in listed]
    pool = ThreadPoolExecutor(min(threads, len(listed)), thread_name_prefix="sqlbak-look")
    try:
        return list(pool.map(ask, listed))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
