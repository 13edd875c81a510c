"""duqsweep: find the fastest quantized form of a robot policy that still does its job."""

__version__ = "0.1.0"
