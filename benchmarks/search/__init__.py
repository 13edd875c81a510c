"""Simulated sweeps: how many episodes each sampler needs to find the true front."""
