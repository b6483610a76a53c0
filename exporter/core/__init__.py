"""What everything rests on: the model of a trace, errors, texts, times, documents, the log."""
