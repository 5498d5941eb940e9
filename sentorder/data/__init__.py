"""From files to batches: formats -> tokenization -> sampling -> collation."""
