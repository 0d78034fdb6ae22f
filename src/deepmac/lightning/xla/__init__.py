"""Everything that knows torch_xla."""
