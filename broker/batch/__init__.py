"""Work on whole catalogues with Spark: joins, neighbours, clusters, density maps."""
