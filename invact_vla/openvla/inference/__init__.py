"""Generation and the policy; int8 and packed weights for CPUs."""
