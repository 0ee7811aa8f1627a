"""A job's output is whole in the end, whatever was lost on the way; or it is said that it is not."""

from __future__ import annotations

from windlass.cli.job_output import KEPT, Output, Rest


def printed(*texts: str) -> Output:
    output = Output(lambda _: None)
    for text in texts:
        output.add(text)
    return output


LONG = "".join(f"line {number}\n" for number in range(20_000))
END = LONG[-KEPT:]


def test_nothing_is_printed_twice() -> None:
    assert printed("a\n", "b\n").rest("a\nb\n") == Rest("", False)
    assert printed(LONG).rest(END) == Rest("", False)
    assert printed("é" * KEPT).rest("é" * (KEPT // 2 - 1)) == Rest("", False)
    assert printed().rest("") == Rest("", False)


def test_the_end_that_did_not_come_is_printed() -> None:
    """Planted defect: the end of a short output is lost where its last event was."""
    assert printed().rest("a\nb\n") == Rest("a\nb\n", False)
    assert printed("a\n").rest("a\nb\n") == Rest("b\n", False)
    assert printed(LONG[:-1000]).rest(END) == Rest(LONG[-1000:], False)


def test_what_is_missing_in_between_is_said() -> None:
    assert printed("b\n").rest("a\nb\nc\n") == Rest("a\nb\nc\n", True)
    assert printed(LONG[:1000]).rest(END) == Rest(END, True)
    assert printed().rest(END) == Rest(END, True)


def test_after_a_known_loss_only_the_end_counts() -> None:
    output = printed("a\n")
    output.miss()
    output.add(LONG[-2000:])
    assert output.rest(END) == Rest("", False)
    output.miss()
    assert output.rest("a\nb\n") == Rest("a\nb\n", True)


def test_another_attempt_is_another_output() -> None:
    output = printed("a\nb\n")
    output.begin_anew()
    output.add("a\n")
    assert output.rest("a\nb\n") == Rest("b\n", False)
