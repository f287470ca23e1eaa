"""shunt: batch LLM inference on spot GPUs of mixed types, with every generation saved by token."""
