"""Watch and report: pictures, packets by coordinate, the report of a night, benchmarks."""
