"""Errors that a user can cause and mend: one sentence, shown without a traceback."""


class UserError(Exception):
    """Something the user can put right. Its text says what, where, and what to do."""


class DataError(UserError):
    """A data set, annotation file or image that cannot be used as it is."""


class ConfigError(UserError):
    """Settings that contradict each other or name something that does not exist."""
