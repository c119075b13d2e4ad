"""Figures of this machine and of reactive_store beside them: `python -m bench`, or `make bench`.

Every figure stands next to a ceiling measured in the same run, since machines differ and so do
their moods: trust the ratios. The load comes from a process of its own.
"""
