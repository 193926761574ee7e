"""From an image to diaSources, and from diaSources to diaObjects."""
