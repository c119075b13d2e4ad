"""What data is: values, documents, their encodings, their order, their ids and their cost.

Import from the modules; this package re-exports nothing.
"""
