"""One game whose samples are spread over the ranks of torch.distributed."""
