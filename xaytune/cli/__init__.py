"""Commands: one thin function each."""
