"""Units of a FITS file to disk, without the clock: the same bytes for the same content."""

import gzip
import io
import warnings
from pathlib import Path
from typing import Any


def write_units(path: Path, units: list[Any]) -> None:
    """Write the units of a FITS file: the whole file or nothing."""
    from astropy.io import fits

    path.parent.mkdir(parents=True, exist_ok=True)
    # The draft keeps the ending: astropy compresses by it.
    draft = path.with_name(f".draft-{path.name}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole = fits.HDUList(units)
        tiled = path.name.endswith(".fz")
        if not tiled:
            # Sums of our own making: astropy's have the clock in their comments.
            whole.update_extend()
            for unit in whole:
                unit.add_checksum(when="of the bytes")
        if path.name.endswith(".gz"):
            # Without the clock, too.
            plain = io.BytesIO()
            whole.writeto(plain)
            draft.write_bytes(gzip.compress(plain.getvalue(), compresslevel=6, mtime=0))
        else:
            whole.writeto(draft, overwrite=True, checksum=tiled)
    draft.replace(path)
