"""A simulated survey: sky, transients, exposures, the truth; and packets of other surveys."""
