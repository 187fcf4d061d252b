"""The tests, flat: one file for each part, in the part's own words."""
