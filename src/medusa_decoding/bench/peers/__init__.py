"""`medusa bench --against`: this project and what people would use instead, in one run."""
