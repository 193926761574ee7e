"""Topics: named, partitioned logs of messages, on Kafka or in memory.

`topic.py` is the port; `memory.py` and `kafka.py` stand behind it and pass the same contract
suite; `publish.py` says how schemas and dead letters stand on topics.
"""
