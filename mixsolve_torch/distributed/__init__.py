"""One game whose samples are sharded over the ranks of torch.distributed."""
