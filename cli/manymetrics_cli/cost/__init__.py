"""What a month on AWS costs: prices and measurements in, a bill by component out. Pure, and of no other room."""
