"""What resuming and pipelines use of vLLM that vLLM does not promise to keep, and nothing else.

One module per process: `front_end` (the worker, which holds `AsyncLLM`), `core` (the engine core),
`worker` (a rank, beside the model runner). `names` is the table of what they rely on, with its
check. Under `workers/`, private modules of vLLM are imported here alone
(tests/workers/engine/test_private.py walks the imports). What is built with these names stands
outside: the scheduler that resumes, the executor of a pipeline.

On a vLLM where a module of these cannot be imported, or where `names.problems` finds something, the
engine runs without the hooks and restarts moved rows: slower, never wrong.
"""
