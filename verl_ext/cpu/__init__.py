"""What veRL lacks to train without a GPU: a platform and an FSDP2 engine for the CPU."""
