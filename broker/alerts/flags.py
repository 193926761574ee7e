"""Quality flags of other surveys' diaSources: which bit of `flags` means what.

The names are Rubin's, whose packets have a boolean field for each; ZTF's count of bad pixels sets
`pixelFlags_bad`. Our own packets come with bits of their own, those of `broker.detection.flags`,
so a filter on `flags` asks for the survey first. Bits are only ever added.
"""

QUALITY_FLAGS: tuple[str, ...] = (
    "centroid_flag",
    "apFlux_flag",
    "apFlux_flag_apertureTruncated",
    "psfFlux_flag",
    "psfFlux_flag_edge",
    "psfFlux_flag_noGoodPixels",
    "trail_flag_edge",
    "forced_PsfFlux_flag",
    "forced_PsfFlux_flag_edge",
    "forced_PsfFlux_flag_noGoodPixels",
    "shape_flag",
    "shape_flag_no_pixels",
    "shape_flag_not_contained",
    "shape_flag_parent_source",
    "pixelFlags",
    "pixelFlags_bad",
    "pixelFlags_cr",
    "pixelFlags_crCenter",
    "pixelFlags_edge",
    "pixelFlags_interpolated",
    "pixelFlags_interpolatedCenter",
    "pixelFlags_offimage",
    "pixelFlags_saturated",
    "pixelFlags_saturatedCenter",
    "pixelFlags_suspect",
    "pixelFlags_suspectCenter",
    "pixelFlags_streak",
    "pixelFlags_streakCenter",
    "pixelFlags_injected",
    "pixelFlags_injectedCenter",
    "pixelFlags_injected_template",
    "pixelFlags_injected_templateCenter",
    "dipoleFitAttempted",
    "pixelFlags_nodata",
    "pixelFlags_nodataCenter",
    "glint_trail",
    "trail_flag",
)
"""Name of each bit, the lowest first."""


def flag_bit(name: str) -> int:
    """Return the number that a flag adds to `flags`."""
    return 1 << QUALITY_FLAGS.index(name)


def flag_names(flags: int) -> list[str]:
    """Return the names of the flags that are set."""
    return [name for bit, name in enumerate(QUALITY_FLAGS) if flags >> bit & 1]
