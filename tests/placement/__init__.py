"""Every forward pass, loss, generation and evaluation on a fake GPU: nothing may be left on the CPU."""
