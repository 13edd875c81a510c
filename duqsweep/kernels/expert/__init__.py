"""The action expert in GPU kernels: several per layer in Triton, or one for all in CUDA C++."""
