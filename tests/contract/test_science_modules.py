"""What every science module and filter must do, asked of all that are found."""

from broker.science import find_contributions
from broker.science.checks import parametrize_with_checks


@parametrize_with_checks(find_contributions())
def test_a_contribution_keeps_the_contract(subject, check):
    check(subject)


def test_there_are_modules_and_filters_to_check():
    found = find_contributions()

    assert len(found.modules) >= 4
    assert len(found.filters) >= 5
