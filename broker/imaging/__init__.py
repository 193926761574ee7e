"""Pixels: images, their geometry, noise and PSF, and what is done to them."""
