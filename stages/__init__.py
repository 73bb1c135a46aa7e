"""The stages of dvc.yaml: each parses its parameters, reads tables, calls alignslm and writes tables."""
