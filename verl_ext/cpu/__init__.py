"""The parts that veRL needs to train without a GPU: a CPU platform, an FSDP2 engine and a checkpoint engine."""
