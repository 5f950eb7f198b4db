"""LoRA by peft: adapters on a model, adapter folders, merging."""
