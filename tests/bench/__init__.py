"""Measurements: data of the size of a large facility, built fast, and what the product does with it."""
