"""Errors that a user can cause and mend: one sentence, shown without a traceback."""


class UserError(Exception):
    """Something the user can put right. Its text says what, where, and what to do."""


class DataError(UserError):
    """A data set, annotation file or image that cannot be used as it is."""


class ConfigError(UserError):
    """Settings that contradict each other or name something that does not exist."""


class Interrupted(UserError):
    """A run that was told to stop and did; its text says how it goes on.

    Args:
        text: one sentence; empty where another process says it.
        code: exit status, 128 + the signal.
    """

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code


def one_sentence(error: BaseException, *, longest: int = 300) -> str:
    """What an exception says, on one line, cut where it is long."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= longest else f"{text[:longest]}..."


def counted(number: int, thing: str) -> str:
    """``1 image``, ``2 images``."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
