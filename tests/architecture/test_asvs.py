"""The page of security requirements and the marks of the tests agree."""

from devtools.asvs import claimed, marked


def test_each_requirement_has_a_test_and_each_mark_a_row() -> None:
    claims, tests = claimed(), marked()
    assert len(claims) > 60
    assert claims.keys() - tests.keys() == set(), "requirements without a test"
    assert tests.keys() - claims.keys() == set(), "marks without a row"
