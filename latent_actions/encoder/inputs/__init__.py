"""What the encoder is fed: clips, streams, augmentation, batches, the verb texts."""
