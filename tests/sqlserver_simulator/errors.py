"""What a statement can fail with: server errors as messages, and the simulator's own refusal."""

from __future__ import annotations

from dataclasses import dataclass

NOT_MODELLED = 50001


@dataclass(frozen=True, slots=True)
class Message:
    """One server message: number, text, severity and state as sent."""

    number: int
    text: str
    severity: int = 16
    state: int = 1


class SqlError(Exception):
    """A statement failed. ``messages`` are sent in order; ``ends_batch`` stops the batch,
    ``ends_session`` closes the connection after them."""

    def __init__(
        self,
        number: int,
        text: str,
        severity: int = 16,
        state: int = 1,
        *,
        ends_batch: bool = False,
        ends_session: bool = False,
    ) -> None:
        self.messages = [Message(number, text, severity, state)]
        self.ends_batch = ends_batch
        self.ends_session = ends_session
        super().__init__(text)

    @property
    def number(self) -> int:
        return self.messages[0].number

    def followed_by(self, *messages: Message) -> SqlError:
        """The same error with more messages after it (such as 3013)."""
        self.messages.extend(messages)
        return self


def not_modelled(what: str) -> SqlError:
    """The loud refusal: a real server may well accept this, the simulator does not know it."""
    return SqlError(
        NOT_MODELLED,
        f"sqlserver_simulator does not model this: {what}",
        16,
        255,
        ends_batch=True,
    )


class Dropped(Exception):
    """The connection is to be cut without a word."""
