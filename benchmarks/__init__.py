"""Promises about speed, measured beside the peers: `python -m benchmarks`. Nothing here is imported by kern_nb."""
