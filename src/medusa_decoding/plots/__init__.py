"""Pictures of results: what `medusa plot` draws. matplotlib is imported only where something is drawn."""
