"""What people read: progress, logs, numbers as text, messages without secrets, and Ctrl-C."""
