"""What rows come in: JSON Lines, a JSON array, CSV or Parquet, each as it is or compressed."""
