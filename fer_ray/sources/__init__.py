"""FER-2013 and similar data sets in every format: recognising, listing, and reading into raw rows."""
