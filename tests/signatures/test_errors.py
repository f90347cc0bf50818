"""One class per thing a caller can do, all under one base; a foreign exception fits on one line."""

import pytest

from signatures import errors

REFUSALS = [
    "LoadError",
    "UnsafeModel",
    "UnsupportedModel",
    "OutputError",
    "ArtifactError",
    "MissingRuntime",
    "FeedError",
]


@pytest.mark.parametrize("name", [*REFUSALS, "ParityError"])
def test_every_refusal_is_caught_by_the_base(name):
    assert issubclass(getattr(errors, name), errors.ExportLSTMError)


def test_the_base_catches_nothing_else():
    assert errors.ExportLSTMError.__mro__[1:] == (Exception, BaseException, object)


def test_an_unsafe_model_is_a_load_error_and_bad_feeds_are_a_value_error():
    assert issubclass(errors.UnsafeModel, errors.LoadError)
    assert issubclass(errors.FeedError, ValueError)
    assert not issubclass(errors.LoadError, ValueError)


@pytest.mark.parametrize(
    ("raised", "line"),
    [
        (ValueError("bad shape"), "ValueError: bad shape"),
        (KeyError(), "KeyError"),
        (RuntimeError("\n  \n"), "RuntimeError"),
        (RuntimeError("\n first \n\n second\nthird"), "RuntimeError: first second"),
        (OSError("\x1b[31mred\x1b[0m and \x1b[1;32mgreen\x1b[m"), "OSError: red and green"),
        (RuntimeError("{{function_node __wrapped__Add}} shapes differ [Op:Add] name: "), "RuntimeError: shapes differ"),
        (TypeError("x" * 900), "TypeError: " + "x" * 300),
    ],
    ids=["plain", "empty", "blank", "two_lines", "colours", "tensorflow", "long"],
)
def test_one_line(raised, line):
    assert errors.one_line(raised) == line
