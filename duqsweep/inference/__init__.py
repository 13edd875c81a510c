"""How a quantized policy becomes fast: merged products, backends of the expert, one CUDA graph."""
