"""The process on a node: takes shards, drives an engine, appends segments."""
