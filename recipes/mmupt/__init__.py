"""MM-UPT (arXiv 2505.22453): label-free GRPO on vision-language models by majority vote."""
