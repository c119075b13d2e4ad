"""What is fast, by question: `python -m bench [QUESTION …]`, or `make bench`.

Every figure stands next to a ceiling measured in the same run, since machines differ and so do
their moods: trust the ratios. Loads come from processes of their own.
"""
