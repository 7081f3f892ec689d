"""What users see: progress, logs, numbers as text, messages without secrets; and how Ctrl-C is handled."""
