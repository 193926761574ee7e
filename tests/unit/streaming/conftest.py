"""One simulated image and its difference, for all tests of the images query."""

import pytest

from broker.detection.differencing.difference import subtract_template
from broker.imaging.message import decode_image
from broker.imaging.templates import TemplateStore
from broker.simulation.observatory import make_templates, simulate_night
from broker.simulation.settings import TEST


@pytest.fixture(scope="session")
def difference(tmp_path_factory):
    """The difference of the first image of a small night."""
    (exposure, _) = simulate_night(seed=5, settings=TEST).exposures()
    image = decode_image(exposure.message.value)
    store = TemplateStore(tmp_path_factory.mktemp("templates"))
    store.put("v1", make_templates(5, TEST))
    ny, nx = image.shape
    ra, dec = image.wcs.pixel_to_sky(nx / 2, ny / 2)
    return subtract_template(image, store.find(float(ra), float(dec), image.band, "v1"))
