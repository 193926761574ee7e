"""What a match means is said in words and ranked."""

import pytest

from broker.catalog.associate import associate, associations
from broker.catalog.definition import definition_of

REFERENCE = definition_of("reference")


def match(**values):
    given = {"Match": 1, "Id": "g1", "Separation": 3.0, "Class": "galaxy", "SizeArcsec": 6.0}
    return {f"reference{name}": value for name, value in (given | values).items()}


@pytest.mark.parametrize(
    ("values", "rank", "sentence"),
    [
        ({}, 2, "In the galaxy g1 of reference, 3.0 arcsec or 0.50 of its radius from the core."),
        (
            {"Separation": 9.0},
            3,
            "Around the galaxy g1 of reference, 9.0 arcsec or 1.50 of its radius from the core.",
        ),
        (
            {"Class": "star", "Separation": 0.31, "SizeArcsec": None},
            1,
            "On the star g1 of reference, 0.31 arcsec away.",
        ),
        ({"Class": "agn", "SizeArcsec": None}, 4, "3.0 arcsec from the AGN g1 of reference."),
        ({"SizeArcsec": None}, 4, "3.0 arcsec from the galaxy g1 of reference."),
        ({"Match": 0}, 9, "No entry of reference is near."),
        ({"Match": -1}, 9, "reference has not been searched here."),
    ],
)
def test_a_match_has_a_sentence_and_a_rank(values, rank, sentence):
    said = associate(REFERENCE, match(**values))

    assert (said.rank, said.sentence) == (rank, sentence)


def test_the_most_telling_catalogue_is_first():
    gaia = {"gaiaMatch": -1}

    said = associations([definition_of("gaia"), REFERENCE], match() | gaia)

    assert [one.catalog for one in said] == ["reference", "gaia"]
