"""Science modules and topic filters: a folder each, found by themselves."""
