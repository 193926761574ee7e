"""The PSF of an image from its stars, and fluxes and places measured with it."""
