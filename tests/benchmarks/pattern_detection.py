"""Detection by a pattern, pixel by pixel in plain Python: a baseline, kept as it was described.

At every position a zone of the image, as large as a 9 × 9 Gaussian pattern and divided by the
image's greatest value, is multiplied by the pattern and summed. Sums above a threshold make an
image of their own, in which a pixel that is above its eight neighbours is a peak. Around a peak
pixels are added ring by ring until a ring's sum falls below the threshold: the integral of the
cluster. It knows no noise, no mask and no PSF.

Beside it is what each way of running takes: a file in, clusters as rows out.
"""

from pathlib import Path

import numpy as np
from astropy.io import fits

WIDTH = 9
SIGMA = 2.0
THRESHOLD_SIGMAS = 5.0


def build_pattern(size=WIDTH, sigma=SIGMA):
    """Return a centred Gaussian whose largest value is 1, shape (size, size)."""
    axis = np.arange(size) - size // 2
    profile = np.exp(-0.5 * (axis / sigma) ** 2)
    return np.outer(profile, profile)


def background_of(image):
    """Return level and noise of the sky, by median and the spread of what is below it."""
    level = float(np.median(image))
    below = image[image < level] - level
    return level, float(np.sqrt(np.mean(below**2)))


def convolve(image, pattern, threshold):
    """Return the sums of zone times pattern that are above a threshold, else 0."""
    half = pattern.shape[0] // 2
    greatest = image.max()
    out = np.zeros(image.shape)
    rows, columns = image.shape
    for row in range(half, rows - half):
        for column in range(half, columns - half):
            zone = image[row - half : row + half + 1, column - half : column + half + 1] / greatest
            product = (zone * pattern).sum()
            if product > threshold:
                out[row, column] = product
    return out


def is_peak(convolved, row, column):
    """Say whether all neighbours are below the value at a position."""
    value = convolved[row, column]
    if value <= 0.0:
        return False
    zone = convolved[row - 1 : row + 2, column - 1 : column + 2]
    return int((zone < value).sum()) == 8


def get_cluster(image, row, column, threshold):
    """Return integral and radius: rings around a peak until one's sum is below the threshold."""
    integral, radius, rows, columns = float(image[row, column]), 0, *image.shape
    while True:
        radius += 1
        top, bottom, left, right = row - radius, row + radius, column - radius, column + radius
        if top < 0 or left < 0 or bottom >= rows or right >= columns:
            return integral, radius
        ring = image[top, left : right + 1].sum() + image[bottom, left : right + 1].sum()
        ring += image[top + 1 : bottom, left].sum() + image[top + 1 : bottom, right].sum()
        if ring < threshold:
            return integral, radius
        integral += float(ring)


def find_clusters(pixels):
    """Return rows (row, column, integral, radius), shape (n, 4), of an image."""
    pixels = np.asarray(pixels, np.float64)
    level, noise = background_of(pixels)
    image = pixels - level
    pattern = build_pattern()
    # The noise of a sum of zone times pattern, the zone being divided by the greatest value.
    threshold = THRESHOLD_SIGMAS * noise * np.sqrt((pattern**2).sum()) / image.max()
    convolved = convolve(image, pattern, threshold)
    found = [
        (row, column, *get_cluster(image, row, column, THRESHOLD_SIGMAS * noise))
        for row in range(1, image.shape[0] - 1)
        for column in range(1, image.shape[1] - 1)
        if is_peak(convolved, row, column)
    ]
    return np.array(found, np.float64).reshape(-1, 4)


def by_pattern(path):
    """Return the clusters of a file's image as lists: x, y, flux."""
    found = find_clusters(fits.getdata(path))
    return {"x": found[:, 1].tolist(), "y": found[:, 0].tolist(), "flux": found[:, 2].tolist()}


def by_matched_filter(path):
    """Return the same of our own detection and measurement."""
    from broker.detection.direct import detect_sources
    from broker.imaging.fits import read_image

    found = detect_sources(read_image(Path(path))).sources
    names = {"x": "x", "y": "y", "flux": "counts"}
    return {key: found[name].to_pylist() for key, name in names.items()}


def match(x, y, ref_x, ref_y, reach):
    """Return pairs (found, reference), one to one: each other's nearest within a reach."""
    from scipy.spatial import cKDTree

    if len(x) == 0 or len(ref_x) == 0:
        return np.empty((0, 2), int)
    own, theirs = np.column_stack([x, y]), np.column_stack([ref_x, ref_y])
    gap, nearest = cKDTree(theirs).query(own)
    back = cKDTree(own).query(theirs)[1]
    mutual = (gap < reach) & (back[nearest] == np.arange(len(own)))
    return np.column_stack([np.flatnonzero(mutual), nearest[mutual]])
