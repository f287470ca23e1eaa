"""Other ways to run a batch, beside ours: same prompts, engine arguments and cores.

`vllm run-batch`, a script around `vllm.LLM.chat`, and `shunt run`; each undisturbed, and with its
whole process tree killed once at half of its undisturbed time and then started again by the same
command, as its user would. What a peer cannot do shows in what it loses.

    python -m benchmarks.peers [--rounds 3] [--rows 96] [--tokens 64] [--seed 0]

Not among them: Ray Data LLM, which needs an environment and a vLLM of its own.
"""
