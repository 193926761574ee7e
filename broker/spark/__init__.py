"""What the Spark programs share: the session, decoding, the one Arrow pass, the writers."""
