"""Nouns in the states tests begin with, made through the use cases themselves."""
