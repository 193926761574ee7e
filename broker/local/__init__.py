"""Kafka and HBase on this machine, from pinned jars: `stack.py` starts, shows and stops them."""
