from __future__ import annotations

import uuid
from typing import Any

import pytest

from hooks.builtins import BUILTINS
from hooks.builtins.access_assignment import AccessAssignment
from hooks.builtins.file_filter import FileFilter
from hooks.builtins.metadata_enrichment import MetadataEnrichment
from hooks.builtins.redirect import Redirect
from hooks.decisions import BeforeTransfer, GrantRequest, Verdict
from tests.hooks.files import a_file, with_content

SEED_FILTER = {"min_size_bytes": 1, "exclude_patterns": ["*.tmp", "*.lock", "~*"]}
SEED_RULE = {"source": "path", "pattern": r"^(?P<date>\d{8})_(?P<compound>[^_/]+)_(?P<nucleus>[^/]+)/"}
ACQUS = (
    b"##TITLE= Parameter file, TOPSPIN\t\tVersion 3.2\r\n##$AQ_mod= 3\r\n##$CNST= (0..31)\r\n1 1 145\r\n"
    b"##$EXP= <>\r\n##$NS= 16\r\n##$PULPROG= <zg30>\r\n##$PULPROG= <second>\r\n##$SOLVENT= <D\xc2\xb2O>\r\n##END=\r\n"
)


def test_every_builtin_describes_itself_and_its_config() -> None:
    for builtin in BUILTINS.values():
        assert builtin.trigger in ("pre_transfer", "post_transfer")
        assert builtin.config_schema["title"]
        assert builtin.config_schema["description"]
        assert builtin.config_schema["additionalProperties"] is False
        assert all(schema["title"] for schema in builtin.config_schema["properties"].values())


# ------------------------------------------------------------------------------------------------------ file_filter


@pytest.mark.parametrize(
    ("path", "size_bytes", "why"),
    [
        ("scratch.tmp", 10, "matches the exclude pattern “*.tmp”"),
        ("a/b/RUN.LOCK", 10, "matches the exclude pattern “*.lock”"),
        ("~run.raw", 10, "matches the exclude pattern “~*”"),
        ("empty.txt", 0, "0 bytes are less than min_size_bytes, 1"),
    ],
)
def test_the_filter_says_which_rule_refused_a_file(path: str, size_bytes: int, why: str) -> None:
    assert FileFilter(SEED_FILTER).before_transfer(a_file(path, size_bytes=size_bytes)) == BeforeTransfer(
        Verdict.SKIP, why
    )


def test_the_filter_takes_what_no_rule_refuses() -> None:
    assert FileFilter(SEED_FILTER).before_transfer(a_file(size_bytes=1)) == BeforeTransfer()
    assert FileFilter({}).before_transfer(a_file("scratch.tmp", size_bytes=0)) == BeforeTransfer()


def test_exclusion_is_stronger_than_inclusion_and_both_bounds_are_taken() -> None:
    filter_ = FileFilter(
        {"include_patterns": ["*.raw"], "exclude_patterns": ["blank*"], "min_size_bytes": 5, "max_size_bytes": 9}
    )
    verdicts = {
        (path, size): filter_.before_transfer(a_file(path, size_bytes=size)).verdict.value
        for path in ("a.raw", "blank.raw", "a.txt")
        for size in (4, 5, 9, 10)
    }
    assert [case for case, verdict in verdicts.items() if verdict == "accept"] == [("a.raw", 5), ("a.raw", 9)]


# -------------------------------------------------------------------------------------------------------- redirect


def test_the_first_rule_that_matches_says_where_a_file_goes() -> None:
    redirect = Redirect(
        {
            "rules": [
                {"patterns": ["calibration/**"], "storage": "S3 dev bucket"},
                {"patterns": ["*.raw"], "sub_path": "raw/2026", "storage": "Archive"},
                {"patterns": ["*.raw", "*.d"], "sub_path": "other"},
            ]
        }
    )
    assert redirect.before_transfer(a_file("calibration/x.raw")) == BeforeTransfer(storage="S3 dev bucket")
    assert redirect.before_transfer(a_file("x.raw")) == BeforeTransfer(storage="Archive", sub_path="raw/2026")
    assert redirect.before_transfer(a_file("x.d")) == BeforeTransfer(sub_path="other")
    assert redirect.before_transfer(a_file("x.txt")) == BeforeTransfer()


def test_a_rule_without_patterns_redirects_every_file() -> None:
    assert Redirect({"rules": [{"sub_path": "all"}]}).before_transfer(a_file()) == BeforeTransfer(sub_path="all")


# ---------------------------------------------------------------------------------------------- metadata_enrichment


def found(rule: dict[str, Any], file: Any) -> dict[str, Any]:
    return MetadataEnrichment({"rules": [rule]}).metadata(file)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("20260201_alanine_13C/pdata/1/1r", {"date": "20260201", "compound": "alanine", "nucleus": "13C"}),
        ("20260210_ethanol_COSY/fid", {"date": "20260210", "compound": "ethanol", "nucleus": "COSY"}),
        ("scratch.tmp", {}),
        ("x/20260210_ethanol_COSY/fid", {}),
    ],
)
def test_named_groups_of_a_path_become_metadata(path: str, expected: dict[str, str]) -> None:
    assert found(SEED_RULE, a_file(path)) == expected


def test_later_rules_win_and_what_is_empty_is_left_out() -> None:
    enrichment = MetadataEnrichment(
        {
            "rules": [
                {"source": "filename", "pattern": r"^(?P<kind>[a-z]*)(?P<rest>\d*)"},
                {"source": "path", "pattern": r"^(?P<kind>[^/]+)/"},
            ]
        }
    )
    assert enrichment.metadata(a_file("HeLa/fid")) == {"kind": "HeLa"}


def test_jcamp_headers_are_read_from_the_beginning_of_the_file() -> None:
    rule = {
        "source": "content",
        "format": "key_value",
        "prefix": "##$",
        "separator": "=",
        "keys": {"PULPROG": "pulse_program", "SOLVENT": "solvent", "NS": "scans", "EXP": "exp", "aq_MOD": "mode"},
        "filename_pattern": "acqus",
        "max_bytes": 65536,
    }
    file = with_content("20260115_glucose_1H/acqus", ACQUS)
    assert found(rule, file) == {"pulse_program": "zg30", "solvent": "D²O", "scans": "16", "mode": "3"}
    assert file.read_head.readings == [65536]  # type: ignore[union-attr]

    other = with_content("20260115_glucose_1H/acqu", ACQUS)
    assert found(rule, other) == {}
    assert other.read_head.readings == []  # type: ignore[union-attr]


def test_a_line_that_the_end_of_the_head_cuts_is_not_taken() -> None:
    rule = {"source": "content", "format": "key_value", "keys": {"a": "a", "b": "b"}, "max_bytes": 9}
    assert found(rule, with_content("x", b"a=1\nb=234567\n")) == {"a": "1"}
    assert found(rule, with_content("x", b"a=1\nb=234")) == {"a": "1", "b": "234"}


@pytest.mark.parametrize(
    ("content", "value"),
    [
        ("Operator: Müller\r\n".encode(), "Müller"),
        ("Operator: Müller\r\n".encode("latin-1"), "Müller"),
        ("Operator: Müller\r\n".encode("utf-16"), "Müller"),
        (b"\xef\xbb\xbfOperator: M\x00 \r\n", "M"),
        ("x\nOperator: Müller\rz".encode(), "Müller"),
    ],
)
def test_headers_are_read_in_the_encodings_of_the_field(content: bytes, value: str) -> None:
    rule = {"source": "content", "format": "key_value", "separator": ":", "keys": {"operator": "operator"}}
    assert found(rule, with_content("_HEADER.TXT", content)) == {"operator": value}


def test_a_pattern_finds_groups_in_the_content() -> None:
    rule = {"source": "content", "pattern": r"(?m)^##\$NS= (?P<scans>\d+)"}
    assert found(rule, with_content("acqus", ACQUS)) == {"scans": "16"}


def test_rules_on_content_share_one_reading_and_find_nothing_where_there_is_no_copy() -> None:
    enrichment = MetadataEnrichment(
        {
            "rules": [
                {"source": "content", "pattern": "(?P<first>.)", "max_bytes": 10},
                {"source": "content", "format": "key_value", "keys": {"b": "b"}, "max_bytes": 100},
            ]
        }
    )
    file = with_content("x", b"b=2\n")
    assert enrichment.metadata(file) == {"first": "b", "b": "2"}
    assert file.read_head.readings == [100]  # type: ignore[union-attr]
    assert enrichment.metadata(a_file("x")) == {}


def test_values_are_cut_to_a_length_that_pages_can_show() -> None:
    value = found({"source": "content", "pattern": "(?P<all>a+)"}, with_content("x", b"a" * 5000))["all"]
    assert len(value) == 1000
    assert value.endswith("a…")


# ------------------------------------------------------------------------------------------------ access_assignment


def granted(grant: dict[str, Any], file: Any) -> list[GrantRequest]:
    return list(AccessAssignment({"grants": [grant]}).grants(file))


@pytest.mark.parametrize(
    ("grant", "request_"),
    [
        ({"to": "user", "email": "chemist@example.com"}, GrantRequest("user", "chemist@example.com")),
        ({"to": "group", "name": "Chemistry"}, GrantRequest("group", "Chemistry")),
        ({"to": "project", "id": "10d1309b"}, GrantRequest("project", "10d1309b")),
    ],
)
def test_a_grant_names_its_grantee(grant: dict[str, Any], request_: GrantRequest) -> None:
    assert granted(grant, a_file()) == [request_]


def test_the_owner_is_granted_access_where_there_is_one() -> None:
    assert granted({"to": "owner"}, a_file(owner_id=uuid.uuid4())) == [GrantRequest("owner")]
    assert granted({"to": "owner"}, a_file()) == []


def test_a_grant_holds_for_the_files_that_its_patterns_match() -> None:
    grant = {"to": "group", "name": "Chemistry", "when": ["kinase/**", "*.dx"]}
    assert granted(grant, a_file("kinase/a/b.raw"))
    assert granted(grant, a_file("other/b.DX"))
    assert not granted(grant, a_file("other/b.raw"))


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ("Kinase ", ["Kinase"]),
        (4711, ["4711"]),
        (["Kinase", "Gold"], ["Kinase", "Gold"]),
        (None, []),
        ("  ", []),
        (True, []),
        ({"name": "Kinase"}, []),
    ],
)
def test_a_value_of_the_metadata_names_the_grantee(value: Any, names: list[str]) -> None:
    found_ = granted({"to": "project", "metadata_key": "project"}, a_file(metadata={"project": value}))
    assert found_ == [GrantRequest("project", name) for name in names]


def test_a_file_without_the_value_is_granted_to_nobody() -> None:
    assert granted({"to": "project", "metadata_key": "project"}, a_file()) == []
