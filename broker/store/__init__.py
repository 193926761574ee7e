"""Tables: rows under sorted byte keys, on HBase or in memory, and the stores that stand on them.

`table.py` is the port; `memory.py` and `hbase.py` stand behind it and pass the same contract
suite. `keys.py` and `schema.py` say what rows look like; the other modules read and write them.
"""
