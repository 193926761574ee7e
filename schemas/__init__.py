"""Avro schemas of packets and images, one file a version."""
