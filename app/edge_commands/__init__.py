"""The commands that ask a running edge to do something, over its admin API: one file a subject.

`caller` finds the edge and the token and says what went wrong, `output` prints.
"""
