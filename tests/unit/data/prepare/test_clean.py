import pytest

from drakkar_workers.data.prepare.clean import gopher, mask_pii, normalise

PROSE = "the men of the town went down to the sea and they came back with fish " * 5


@pytest.mark.parametrize(
    ("found", "clean"),
    [
        ("a\r\nb\rc", "a\nb\nc"),
        ("a  \t\nb", "a\nb"),
        ("a\n\n\n\n\nb", "a\n\nb"),
        ("\ufeffa\x00b\x1b[0m\u200b", "ab[0m"),
        ("e\u0301", "\u00e9"),
        (" \n\n ", ""),
    ],
)
def test_a_text_has_one_form(found, clean):
    assert normalise(found) == clean
    assert normalise(clean) == clean


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (PROSE, None),
        ("too short", "words"),
        ("aaaaaaaaaaaaaaaaaaaaaaaa " * 60, "wordLength"),
        (PROSE.replace("sea", "#sea").replace("fish", "#fish"), "symbols"),
        (
            "\n".join(f"- the men of town{i} went to the sea and rowed" for i in range(20)),
            "bullets",
        ),
        (
            "\n".join(f"the men of town{i} went to the sea and came ..." for i in range(20)),
            "ellipses",
        ),
        ("the 12345 and 6789 1234 5678 9999 1234 " * 20, "letters"),
        ("menn went down there fishing " * 20, "stopWords"),
        ("\n".join(["the men of the town and the sea"] * 10), "repeatedLines"),
        ("", "words"),
    ],
)
def test_the_rule_that_a_text_breaks_is_named(text, rule):
    assert gopher(text) == rule


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("write to a.b+c@mail.example.org.", "write to <EMAIL>."),
        ("card 4111 1111 1111 1111 now", "card <CARD> now"),
        ("number 4111 1111 1111 1112 stays", "number 4111 1111 1111 1112 stays"),
        ("at 192.168.10.1:80", "at <IP>:80"),
        ("version 1.2.3.4.5 and 300.1.1.1 stay", "version 1.2.3.4.5 and 300.1.1.1 stay"),
        ("call +1 (555) 123-4567 or 555-123-4567", "call <PHONE> or <PHONE>"),
        ("in 1611, 3:16, 2024-01-02", "in 1611, 3:16, 2024-01-02"),
    ],
)
def test_what_names_a_person_is_masked(text, masked):
    found, counts = mask_pii(text)
    assert found == masked
    assert sum(counts.values()) == found.count("<")
