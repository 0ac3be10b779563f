"""Built-in data sets, drawn: shapes and stick figures."""
