"""The pending requirements of paused runs, resolved by a click."""
