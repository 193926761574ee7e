"""The three Spark queries: images to alerts, alerts to science, packets to the archive."""
