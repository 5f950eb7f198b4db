"""What stages exchange: the label store, robot demonstrations, action statistics, videos."""
