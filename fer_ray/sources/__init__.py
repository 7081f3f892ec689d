"""FER-2013 and its like in every format: recognised, listed, and read to raw rows."""
