"""Result files: made from outcomes, written once, checked against the log again."""
