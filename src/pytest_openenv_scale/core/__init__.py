"""Values and helpers that know nothing of the rest: parsing, formatting, redaction, locks, files, errors.

Imports none of the other packages.
"""
