"""Routing rules without a node: how a file is read, what is said of each fault, which rule a study falls under."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.datadict import tag_for_keyword

from node.results import KINDS
from node.rules.judge import holds, judge, why_not
from node.rules.model import Days, Facts, Glob, Image, Known, Numbers, Rule, Times, tags
from node.rules.parse import parse

KNOWN = Known({"pacs": True, "archive": True, "source": False}, frozenset({"gmic3d-2"}))


def read(text: str) -> tuple[Rule, ...]:
    """The rules of a file without fault."""
    found = parse(text, "r.toml", KNOWN)
    assert not found.faults, found.faults
    return found.rules


def image(calling_ae: str | None = "MAMMO1", **values: str) -> Image:
    """An image with these attributes, by keyword."""
    return Image(calling_ae, {int(tag_for_keyword(k) or 0): (v,) for k, v in values.items()})


def study(*images: Image, views: str = "", pulled: bool = False) -> Facts:
    """What is known of a study."""
    return Facts(images, frozenset(views.split()), pulled)


WHOLE = """
[[rule]]
name = "priors"
when = { pulled = true }
then = { model = "none" }

[[rule]]
name = "screening"
[rule.when]
StationName = ["MAMMO*", "TOMO?"]
"(0008,0080)" = "general hospital"
StudyDate = "20260101-20261231"
KVP = { from = 25, to = 35.5 }
views = ["L-CC", "R-CC"]
[rule.then]
model = "gmic3d-2"
destinations = ["pacs", "archive"]
results = { archive = ["cad_sr", "SR"] }

[[rule]]
then = { destinations = "none" }
"""


def test_a_file_is_read_in_full() -> None:
    priors, screening, rest = read(WHOLE)

    assert (priors.name, priors.then.model, priors.when.pulled) == ("priors", "none", True)
    assert screening.then.model == "gmic3d-2"
    assert screening.frozen() == {
        "rule": "screening",
        "destinations": ["pacs", "archive"],
        "results": {"archive": ["SR", "CAD_SR"]},
    }
    assert screening.when.views == {"L-CC", "R-CC"}
    assert {c.name: c.terms for c in screening.when.attributes} == {
        "StationName": (Glob("MAMMO*"), Glob("TOMO?")),
        "(0008,0080)": (Glob("general hospital"),),
        "StudyDate": (Days("20260101", "20261231"),),
        "KVP": (Numbers(25, 35.5),),
    }
    assert (rest.name, rest.then.destinations, rest.frozen()["destinations"]) == ("rule 3", (), [])
    assert tags((priors, rest)) == frozenset()


GOOD = image(
    StationName="tomo3",
    InstitutionName="General Hospital",
    StudyDate="20260704",
    KVP="29.0",
)


@pytest.mark.parametrize(
    ("facts", "matches", "why"),
    [
        (study(GOOD, views="L-CC R-CC"), "screening", "the study was not pulled"),
        (study(GOOD, views="L-CC R-CC", pulled=True), "priors", ""),
        (study(GOOD, views="L-CC R-MLO"), "rule 3", "views missing: R-CC"),
        (study(image(), views="L-CC R-CC"), "rule 3", "StationName is absent or empty"),
        (
            study(image(StationName="CT1"), image(StationName="CT2"), views="L-CC R-CC"),
            "rule 3",
            "StationName is 'CT1', 'CT2'",
        ),
        # one image has the station and another the hospital: no image has both
        (
            study(
                image(StationName="MAMMO1", StudyDate="20260704", KVP="30"),
                image(InstitutionName="GENERAL HOSPITAL"),
                views="L-CC R-CC",
            ),
            "rule 3",
            "no one image fulfils all of it",
        ),
    ],
)
def test_the_first_rule_that_matches_wins_and_the_others_say_why(
    facts: Facts, matches: str, why: str
) -> None:
    found = judge(read(WHOLE), facts)

    assert found.rule is not None
    assert found.rule.name == matches
    assert (found.passed_over[-1][1] if found.passed_over else "") == why


def test_no_rule_matches_where_none_is_for_everything() -> None:
    rules = read(WHOLE)[:2]

    found = judge(rules, study(image()))

    assert found.rule is None
    assert [rule.name for rule, _ in found.passed_over] == ["priors", "screening"]


def test_who_sent_it_counts_for_the_same_image() -> None:
    (rule,) = read(
        '[[rule]]\nwhen = { calling_ae = "ROOM1", Modality = "MG" }\nthen = { model = "none" }'
    )

    assert why_not(rule, study(image("room1", Modality="MG"))) is None
    assert why_not(rule, study(image("ROOM2", Modality="MG"))) == "calling_ae is ROOM2"
    assert why_not(rule, study(image(None, Modality="MG"))) == "calling_ae is not known"
    apart = study(image("ROOM1", Modality="OT"), image("ROOM2", Modality="MG"))
    assert why_not(rule, apart) == "no one image fulfils all of it"


def test_values_of_patients_are_not_told() -> None:
    (rule,) = read(
        '[[rule]]\nwhen = { PatientID = "TEST*", "(0019,1001)" = "x" }\nthen = { model = "none" }'
    )
    assert "4711" not in str(why_not(rule, study(image(PatientID="4711"))))

    faults = parse(
        '[[rule]]\nwhen = { PatientBirthDate = "19601301x" }\nthen = {}', "r.toml", None
    ).faults
    assert len(faults) == 1
    assert "19601301x" not in faults[0]


@pytest.mark.parametrize(
    ("term", "yes", "no"),
    [
        (Glob("A*B?"), ["aXXby", "ABc"], ["ab", "xABc", ""]),
        (Glob("*"), ["", "x"], []),
        (Glob("?*"), ["x"], [""]),
        (Glob(""), [""], ["x"]),
        (Glob("a.b[1]"), ["A.B[1]"], ["axb1", "a.b1"]),
        (Numbers(2, 4), ["2", "4.0", "3e0"], ["1.9", "4.1", "", "x", "nan"]),
        (Numbers(None, 4), ["-7"], ["5", "nan"]),
        (Days("20260101", None), ["20260101", "2027.02.03"], ["20251231", "", "2026"]),
        (Days(None, "20261231"), ["19990101"], ["20270101"]),
        (Times("101500.000000", "101559.999999"), ["1015", "101559.5", "10:15:30"], ["1016", ""]),
    ],
)
def test_what_a_value_must_be_like(
    term: Glob | Numbers | Days | Times, yes: list[str], no: list[str]
) -> None:
    assert [holds(term, value) for value in yes] == [True] * len(yes)
    assert [holds(term, value) for value in no] == [False] * len(no)


@given(st.text(max_size=20), st.text(max_size=20))
def test_a_pattern_without_wildcards_is_its_value_and_nothing_else(one: str, other: str) -> None:
    plain = one.replace("*", "").replace("?", "")

    assert holds(Glob(plain), plain)
    assert holds(Glob(f"*{plain}*"), f"{other}{plain}{other}")
    if other.casefold() != plain.casefold() and other.upper() != plain.upper():
        assert not holds(Glob(plain), other)


def rule(when: str = "{}", then: str = "{}") -> str:
    """A file with one rule."""
    return f'[[rule]]\nname = "r"\nwhen = {when}\nthen = {then}\n'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[rule]\n", ["not valid TOML", "line 1"]),
        ("[[rules]]\n", ["'rules'", "did you mean 'rule'"]),
        ("rule = 3\n", ["[[rule]]"]),
        ('[[rule]]\nname = "r"\n', ["no `then`"]),
        ('[[rule]]\nthen = {}\nname = ""\n', ["name is ''", "1 to 64"]),
        (rule() + rule(), ["rule 2 'r'", "name of an earlier rule"]),
        ("[[rule]]\nwen = {}\nthen = {}\n", ["'wen'", "did you mean 'when'"]),
        ("[[rule]]\nwhen = 3\nthen = {}\n", ["when is 3", "table"]),
        (rule('{ StatoinName = "X" }'), ["StatoinName", "did you mean 'StationName'"]),
        (rule('{ "(0008,9999)" = "X" }'), ["(0008,9999)", "no tag of the standard"]),
        (rule('{ "(0002,0003)" = "X" }'), ["TransferSyntaxUID"]),
        (rule("{ StationName = 3 }"), ["StationName", "is 3", "in quotes"]),
        (rule("{ StationName = [] }"), ["empty list"]),
        (rule("{ StationName = true }"), ["true"]),
        (rule("{ StationName = { from = 1 } }"), ["StationName", "range of numbers"]),
        (rule("{ StudyDate = { from = 1 } }"), ["StudyDate", "'A-B'"]),
        (rule("{ StudyDate = 2026-01-31 }"), ["2026-01-31", "'20260131'"]),
        (rule('{ StudyDate = "2026-" }'), ["bad range", "'2026-'", "YYYYMMDD"]),
        (rule('{ StudyDate = "20261231-20260101" }'), ["ends before it begins"]),
        (rule('{ StudyDate = "*" }'), ["StudyDate", "'*'"]),
        (rule('{ KVP = "high" }'), ["KVP", "'high'", "{ from = 1, to = 9 }"]),
        (rule("{ KVP = { from = 9, to = 2 } }"), ["bad range", "from 9", "to 2"]),
        (rule("{ KVP = { min = 9 } }"), ["from = 1"]),
        (rule("{ KVP = nan }"), ["KVP", "nan"]),
        (rule('{ ViewCodeSequence = "CC" }'), ["SQ", "`views`"]),
        (rule('{ calling_ae = "ABCDEFGHIJKLMNOPQ" }'), ["16 characters"]),
        (rule("{ calling_ae = 3 }"), ["calling_ae is 3"]),
        (rule('{ views = ["LCC"] }'), ["'LCC'", "did you mean 'L-CC'"]),
        (rule('{ pulled = "yes" }'), ["pulled is 'yes'", "true or false"]),
        (rule(then='{ model = "gmic3d-3" }'), ["'gmic3d-3'", "did you mean 'gmic3d-2'"]),
        (rule(then="{ model = 2 }"), ["'active'", "'none'"]),
        (rule(then='{ destinations = ["pasc"] }'), ["'pasc'", "did you mean 'pacs'"]),
        (rule(then='{ destinations = ["source"] }'), ["'source'", "gets no results"]),
        (rule(then='{ destinations = "pacs" }'), ["'pacs'", "'all', 'none' or a list"]),
        (rule(then='{ results = { pacs = ["SEGG"] } }'), ["'SEGG'", "did you mean 'SEG'", *KINDS]),
        (rule(then='{ results = { pacs = ["SEG", "SEG_JPEG2000"] } }'), ["two forms"]),
        (rule(then="{ results = { pacs = [] } }"), ["then.results", "[]"]),
        (
            rule(then='{ destinations = ["pacs"], results = { archive = ["SR"] } }'),
            ["'archive'", "none of then.destinations"],
        ),
        (rule(then='{ model = "none", destinations = ["pacs"] }'), ["nothing to send"]),
        (rule(then='{ priors = "all" }'), ["priors", "not understood"]),
    ],
)
def test_every_fault_is_one_line_that_says_where_what_and_what_to_do(
    text: str, words: list[str]
) -> None:
    faults = parse(text, "conf/r.toml", KNOWN).faults

    assert len(faults) == 1, faults
    assert faults[0].startswith("rules conf/r.toml: ")
    assert "\n" not in faults[0]
    for word in words:
        assert word in faults[0]


def test_all_faults_of_a_file_are_told_at_once() -> None:
    text = rule('{ Statoin = "x", KVP = "y" }', '{ model = "m", destinations = ["p"] }')

    assert len(parse(text, "r.toml", KNOWN).faults) == 4


def test_names_are_not_looked_up_where_nobody_knows_them() -> None:
    text = rule(then='{ model = "m", destinations = ["p"] }')

    assert not parse(text, "r.toml", None).faults


@given(st.text(max_size=200))
def test_no_text_is_too_odd_to_be_read(text: str) -> None:
    for line in parse(text, "r.toml", KNOWN).faults:
        assert line.startswith("rules r.toml: ")
