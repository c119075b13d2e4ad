"""What data may be: validators, tables and their indexes.

Import from the modules; this package re-exports nothing.
"""
