"""EC2: offerings, launches, notices, spend and the reaper. The only place that imports boto3."""
