"""Errors that say how to go on after a commit, or instead of one."""

from __future__ import annotations


class RetryableError(Exception):
    """Nothing that the events themselves cause: the same batch can be delivered again."""


class StoredDataError(RetryableError):
    """Data that is already in the tables can't be read. The message names it."""


class CommitNotConfirmedError(RetryableError):
    """A commit was refused, or its answer was lost: load the table again, which tells."""


class ConflictError(CommitNotConfirmedError):
    """Somebody else committed first: nothing of this commit landed."""


class CommitStateUnknownError(CommitNotConfirmedError):
    """The answer was lost: the commit may have landed."""
