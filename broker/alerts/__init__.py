"""Alerts: packets as bytes, as records and as canonical columns."""
