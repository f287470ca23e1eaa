"""The warm process: one with vLLM and torch imported, from which engine cores and ranks are forked.

Here are its server, what it imports beforehand, the multiprocessing context that asks it, and its
owner. It holds no weights (`workers/weights/`) and decides nothing about engines
(`workers/engine/`).
"""
