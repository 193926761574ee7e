"""How good an image is, and what is wrong with it."""
