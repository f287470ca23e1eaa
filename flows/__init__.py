"""The edge: the command line, the Prefect flow, and what people see of a run."""
