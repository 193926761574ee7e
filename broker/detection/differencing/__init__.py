"""An exposure minus a template: matching, noise, and what speaks against a source of it."""
