"""The tree of errors: what a client may rely on."""

from __future__ import annotations

from windlass import errors
from windlass.errors import QueueFull, StoreFull, StoreUnavailable, WindlassError, tree


def test_each_error_has_a_code_of_its_own() -> None:
    """Fails when two problems cannot be told apart, or a status is none."""
    codes = [error.code for error in tree()]
    assert len(codes) == len(set(codes))
    assert all(400 <= error.status < 600 for error in tree())


def test_the_tree_has_every_error_of_the_module() -> None:
    """Fails when an error stands outside the one tree."""
    named = {v for v in vars(errors).values() if isinstance(v, type) and issubclass(v, Exception)}
    assert named == set(tree())


def test_a_title_is_one_sentence_without_its_full_stop() -> None:
    """Fails when a class has no docstring, or its first line does not end."""
    for error in tree():
        title = error.title()
        assert title[0].isupper()
        assert not title.endswith(".")
        assert (error.__doc__ or "").splitlines()[0] == title + "."


def test_an_error_carries_detail_field_and_retry() -> None:
    """Fails when what was said where it was raised is lost on the way to the client."""
    error = QueueFull("Full.", field="name", retry_after=3)
    assert (error.detail, error.field, error.retry_after) == ("Full.", "name", 3)
    assert WindlassError().detail == "Windlass could not do what was asked"
    assert issubclass(StoreFull, StoreUnavailable)
