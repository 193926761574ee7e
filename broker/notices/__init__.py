"""Notices of events elsewhere, and the alerts that may belong to them."""

from broker.notices.match import Known, Window, best_matches, members, not_searched
from broker.notices.notice import Notice
from broker.notices.parse import parse_notice
from broker.notices.place import Ellipse, ProbabilityMap

__all__ = [
    "Ellipse",
    "Known",
    "Notice",
    "ProbabilityMap",
    "Window",
    "best_matches",
    "members",
    "not_searched",
    "parse_notice",
]
