"""What a program asks over HTTP: alerts, objects, cutouts, topics and how the night went."""

from broker.api.app import make_app
from broker.api.sources import Sources

__all__ = ["Sources", "make_app"]
