"""Batch LLM inference on spot GPUs of mixed types, with every generation saved token by token.

The library: words, durable state and adapters. Its rooms stand on each other in this order, and
`tests/test_layers.py` holds it: `store`, `plan` and `model`, `job`, `structure`, `dataset`,
`checkpoint`, `results`, `run`, `fleet`, `report`, `aws`, `drill`. Beside them: `keys` (every name
of a durable object), `errors`, `retry` and `cache_folder`, which any room may use; `demo_model` and
`testing`, which may use any room.
"""
