"""Programs that run before and after a backup.

They are started from an argument list, never through a shell, in a session of their own, with an
environment that holds none of sqlbak's secrets. Whatever they start is ended with them.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sqlbak.errors import HookFailed, Interrupted, SqlbakError
from sqlbak.jobs.backup import BackupOutcome
from sqlbak.model import PointType
from sqlbak.policy.calendar import Slot
from sqlbak.policy.hook_settings import Hook, Hooks
from sqlbak.stopping import NEVER, StopSignal

__all__ = ["HookEnd", "around"]

_KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR")
_SHOWN_BYTES = 2000
_LOOK_SECONDS = 0.05
_GRACE_SECONDS = 5.0

HookEnd = Callable[[str, HookFailed | None], None]
"""Told of every hook that ended: ``pre`` or ``post``, and how it failed; None: it did not."""


@dataclass(frozen=True, slots=True)
class _Backup:
    """Which backup the hooks are around."""

    item: str
    type: PointType
    slot: Slot | None


def around(
    hooks: Hooks,
    item: str,
    point_type: PointType,
    slot: Slot | None,
    take: Callable[[], BackupOutcome],
    *,
    on_end: HookEnd,
    stop: StopSignal = NEVER,
) -> BackupOutcome:
    """``take()``, with the instance's hooks around it. ``post`` runs whatever happened once ``pre``
    was begun, also after a stop.

    Raises what ``take`` raises; HookFailed where a hook's failure counts as one of the run.
    """
    backup = _Backup(item, point_type, slot)
    outcome: BackupOutcome | None = None
    failure: BaseException | None = None
    try:
        if (pre := _wanted(hooks.pre, point_type)) is not None:
            _run("pre", pre, _facts("pre", backup), on_end, stop)
        outcome = take()
    except BaseException as error:
        failure = error
        raise
    finally:
        if (post := _wanted(hooks.post, point_type)) is not None:
            facts = _facts("post", backup) | _outcome(outcome, failure)
            try:
                _run("post", post, facts, on_end, NEVER)
            except HookFailed as error:
                # What failed first is what is told; this was told to on_end.
                if failure is None:
                    raise
                failure.add_note(error.message)
    return outcome


def _wanted(hook: Hook | None, point_type: PointType) -> Hook | None:
    return hook if hook is not None and point_type in hook.types else None


def _facts(name: str, backup: _Backup) -> dict[str, str]:
    slot = backup.slot
    return {
        "SQLBAK_HOOK": name,
        "SQLBAK_ITEM": backup.item,
        "SQLBAK_TYPE": backup.type.value,
        "SQLBAK_SLOT": "" if slot is None else slot.instant.isoformat(),
    }


def _outcome(outcome: BackupOutcome | None, failure: BaseException | None) -> dict[str, str]:
    points = () if outcome is None else outcome.points
    if failure is None:
        word = "succeeded" if points else "skipped"
    else:
        word = "interrupted" if isinstance(failure, Interrupted) else "failed"
    return {
        "SQLBAK_OUTCOME": word,
        "SQLBAK_POINTS": " ".join(point.id for point in points),
        "SQLBAK_ERROR": failure.code if isinstance(failure, SqlbakError) else "",
    }


def _run(
    name: str,
    hook: Hook,
    facts: Mapping[str, str],
    on_end: HookEnd,
    stop: StopSignal,
) -> None:
    """HookFailed when it failed and its policy is to stop; Interrupted when ``stop`` is asked."""
    try:
        _call(name, hook, facts, stop)
    except HookFailed as error:
        on_end(name, error)
        if hook.on_failure == "stop":
            raise
    else:
        on_end(name, None)


def _call(name: str, hook: Hook, facts: Mapping[str, str], stop: StopSignal) -> None:
    kept = {key: value for key, value in os.environ.items() if key in _KEPT}
    program = hook.command[0]
    # A file, not a pipe: a child that the hook leaves behind may hold its end of a pipe for ever.
    with tempfile.TemporaryFile() as output:
        try:
            process = subprocess.Popen(
                hook.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**kept, **facts},
                cwd="/",
                start_new_session=True,
            )
        except OSError as error:
            raise HookFailed(
                f"the {name} hook {program} cannot be run: {error.strerror or 'not a program'}",
                hint="make it a program that the user who runs sqlbak may execute",
            ) from error
        code = _wait(process, hook.timeout, stop)
        if code == 0:
            return
        said = _tail(output.fileno())
    how = f"took more than {hook.timeout} s" if code is None else f"ended with {_how(code)}"
    raise HookFailed(
        f"the {name} hook {program} {how}" + (f": {said}" if said else ""),
        hint="run it by hand with the same arguments; hooks get a small environment of their own",
    )


def _wait(process: subprocess.Popen[bytes], timeout_seconds: float, stop: StopSignal) -> int | None:
    """How it ended; None: its time was over. Interrupted. Nothing that it started outlives it."""
    try:
        ended = _has_ended(process, timeout_seconds, stop)
    except Interrupted:
        _end(process)
        raise
    code = _end(process)
    return code if ended else None


def _has_ended(process: subprocess.Popen[bytes], seconds: float, stop: StopSignal) -> bool:
    """Whether it ends within ``seconds``. Its number is not given back yet. Interrupted."""
    deadline = time.monotonic() + seconds
    while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
        if time.monotonic() >= deadline:
            return False
        if stop.wait(_LOOK_SECONDS):
            stop.check()
    return True


def _end(process: subprocess.Popen[bytes]) -> int:
    """End its whole session, gently first where the program itself still runs; how it ended."""
    if not _has_ended(process, 0, NEVER):
        _signal(process.pid, signal.SIGTERM)
        _has_ended(process, _GRACE_SECONDS, NEVER)
    # Until it is waited for, the number of the group cannot be anybody else's.
    _signal(process.pid, signal.SIGKILL)
    return process.wait()


def _signal(group: int, number: signal.Signals) -> None:
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return  # nobody is left, or only what changed its user


def _tail(descriptor: int) -> str:
    size = os.fstat(descriptor).st_size
    data = os.pread(descriptor, _SHOWN_BYTES, max(size - _SHOWN_BYTES, 0))
    return " ".join(data.decode("utf-8", "replace").split())


def _how(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
