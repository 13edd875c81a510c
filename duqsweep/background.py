"""Calls that may take long, in threads of their own, so that their callers need not wait."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import TypeVar

T = TypeVar("T")


def in_background(call: Callable[[], T]) -> Future[T]:
    """Start `call` in a thread that does not keep this process from ending."""
    future: Future[T] = Future()
    Thread(target=_run, args=(call, future), daemon=True).start()
    return future


def _run(call: Callable[[], T], future: Future[T]) -> None:
    try:
        future.set_result(call())
    except BaseException as error:
        future.set_exception(error)  # raised where the result is asked for
