"""GPU kernels in Triton: tensors in, tensors out; nothing here knows a policy or a quantizer."""
