"""How a process that works on images keeps its memory."""

ALLOCATOR = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "4294967296"}
"""Environment of such a process, read by the C library when it starts.

An image is a dozen planes of up to 64 MB. Given back to the system and asked for again each time,
their pages cost twice as much as the arithmetic; so the process keeps what its largest image took.
"""
