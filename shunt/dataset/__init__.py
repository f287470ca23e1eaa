"""The dataset: from files of many formats to rows in order, at constant memory."""
