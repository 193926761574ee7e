"""How a process that works on images keeps its memory and its core."""

ALLOCATOR = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "4294967296"}
"""Environment of such a process, read by the C library when it starts.

An image is a dozen planes of up to 64 MB. Given back to the system and asked for again each time,
their pages cost twice as much as the arithmetic; so the process keeps what its largest image took.
"""

ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
}
"""Environment of a process that is one of several, one a core: the kernel's fit is made of products
of small matrices, on which threads wait for one another longer than they work."""

WORKER = ALLOCATOR | ONE_THREAD
"""Environment of a process that works on images beside others."""
