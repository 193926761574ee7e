"""The command line: what a person types, and the one place that puts concrete parts together."""
