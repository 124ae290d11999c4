"""Errors of commits, by how the caller should continue."""

from __future__ import annotations


class RetryableError(Exception):
    """Not caused by the events themselves: the same batch can be retried."""


class StoredDataError(RetryableError):
    """Data that is already in the tables can't be read. The message names it."""


class CommitNotConfirmedError(RetryableError):
    """A commit was rejected, or its response was lost: reload the table to find out."""


class ConflictError(CommitNotConfirmedError):
    """Another process committed first: nothing of this commit landed."""


class CommitStateUnknownError(CommitNotConfirmedError):
    """The response was lost: the commit may have landed."""
