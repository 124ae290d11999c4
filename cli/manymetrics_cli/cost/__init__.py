"""Compute what a month on AWS costs: prices and measurements in, a bill by component out. It has no dependencies."""
