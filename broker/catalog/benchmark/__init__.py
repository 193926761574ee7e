"""How fast catalogues are, beside known programs on the same data in the same run."""
