"""How a quantized policy becomes fast: merged products, backends of the expert, CUDA graphs."""
