"""The Hugging Face Hub: how it is reached, and runs kept there as a dataset."""
