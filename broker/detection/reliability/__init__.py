"""How likely a diaSource is real: evidence, the trained score, its training and report."""
