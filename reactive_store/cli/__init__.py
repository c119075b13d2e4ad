"""The program `reactive-store`: one file per verb.

A verb's file imports at its top only what `--help` needs; the rest is imported by the command that
runs, so that help and completion stay quick.
"""
