"""TAP: questions in ADQL, from TOPCAT, pyvo and their like."""

from broker.api.tap.routes import PREFIX, add_tap

__all__ = ["PREFIX", "add_tap"]
