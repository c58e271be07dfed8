"""fp16 and bf16: what tensors hold, what stays in fp32, and the conversion."""
