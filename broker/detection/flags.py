"""Quality flags of a diaSource or a direct image's source: a bit each, with what it means."""

from enum import IntFlag


class SourceFlag(IntFlag):
    """The flags; one is added at the end with the next free bit, none is ever changed."""

    EDGE = 1 << 0
    SATURATED = 1 << 1
    BAD = 1 << 2
    COSMIC_RAY = 1 << 3
    NO_TEMPLATE_DATA = 1 << 4
    SATURATED_TEMPLATE = 1 << 5
    DIPOLE = 1 << 6
    CENTROID_FAILED = 1 << 7
    BRIGHT_STAR_NEAR = 1 << 8
    NEIGHBOUR_NEAR = 1 << 9
    POOR_SUBTRACTION = 1 << 10
    LATE_VISIT = 1 << 11
    STREAK = 1 << 12
    DEBLENDED = 1 << 13
    PSF_FROM_HEADER = 1 << 14


DOCS: dict[SourceFlag, str] = {
    SourceFlag.EDGE: "Within a PSF of the image's border.",
    SourceFlag.SATURATED: "A saturated pixel of the science image lies within the PSF.",
    SourceFlag.BAD: "A bad pixel lies within the PSF and was left out of the fit.",
    SourceFlag.COSMIC_RAY: "A pixel sharper than the optics can make it lies within the PSF.",
    SourceFlag.NO_TEMPLATE_DATA: "Part of the PSF has no template.",
    SourceFlag.SATURATED_TEMPLATE: "A pixel within the PSF is saturated in all of the template.",
    SourceFlag.DIPOLE: "Two sources of opposite sign fit better than one.",
    SourceFlag.CENTROID_FAILED: "The fitted place left the peak; the peak's pixel is given.",
    SourceFlag.BRIGHT_STAR_NEAR: "The light of a star is more than half of the pixel's variance.",
    SourceFlag.NEIGHBOUR_NEAR: "Another diaSource is within three PSF widths.",
    SourceFlag.POOR_SUBTRACTION: "The matching kernel was fitted to few stars, or badly.",
    SourceFlag.LATE_VISIT: "Its visit came after a later one of the same place.",
    SourceFlag.STREAK: "The trail of a satellite or a fast mover lies within the PSF.",
    SourceFlag.DEBLENDED: "It was seen only when its neighbours had been subtracted.",
    SourceFlag.PSF_FROM_HEADER: "The image has too few stars to measure its PSF.",
}
"""What each flag means, in one sentence."""


def names(flags: int) -> list[str]:
    """Return the names of the flags that are set, lowest bit first."""
    return [flag.name or "" for flag in SourceFlag if flags & flag]
